"""`carousel init`, `check`, `encode`: what comes before and after a training."""

import json
import re

import numpy as np
import pytest
import yaml

from carousel.tasks import TASKS, Classifier, load_task


def config(folder):
    """A run's configuration without what says where the data were."""
    values = yaml.safe_load((folder / "config.yaml").read_text())
    return {name: value for name, value in values.items() if name not in ("train", "valid")}


# --- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_starter_says_all_options_with_their_defaults(carousel, tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    said = carousel("init", task)
    assert (said.code, said.out) == (0, f"{task}.yaml\n")
    assert f"carousel fit {task} --config {task}.yaml --train FILE --out DIR" in said.err
    text = (tmp_path / f"{task}.yaml").read_text()
    options = load_task(task).option_list()
    for option in options:
        assert f"\n{option.name}:" in text
        assert option.help.rstrip(".").split()[0] in text
    assert list(yaml.safe_load(text)) == ["task", "train", "valid", *(option.name for option in options)]
    assert max(map(len, text.splitlines())) <= 120
    assert carousel("init", task, "-").out == text


def test_the_starter_trains_as_it_is(carousel, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert carousel("init", "classify", "mine.yaml").code == 0
    # The defaults take minutes, so the network and the epochs alone are said otherwise, in both.
    few = ["--train", data / "train.tsv", "--epochs", "1", "--hidden_size", "4", "--embedding_size", "4", "--progress", "false"]
    first = carousel("fit", "classify", *few, "--out", "plain", "--threads", "1")
    assert first.code == 0, first.err
    second = carousel("fit", "classify", "--config", "mine.yaml", *few, "--out", "configured", "--threads", "1")
    assert second.code == 0, second.err
    assert config(tmp_path / "configured") == config(tmp_path / "plain")
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("plain", "configured")]
    assert weights[0] == weights[1]


def test_a_changed_starter_is_heeded(carousel, data, tmp_path):
    file = tmp_path / "mine.yaml"
    carousel("init", "classify", file)
    text = file.read_text().replace("hidden_size: 128", "hidden_size: 5").replace("epochs: 20", "epochs: 1")
    file.write_text(text.replace("train: null", f"train: {data / 'train.tsv'}").replace("progress: true", "progress: false"))
    assert carousel("fit", "classify", "--config", file, "--out", tmp_path / "run", "--threads", "1").code == 0
    assert Classifier.load(tmp_path / "run").options.hidden_size == 5


def test_nothing_is_overwritten_unless_asked(carousel, tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    assert "mine.yaml: exists already" in carousel("init", "classify", tmp_path / "mine.yaml").refused()
    assert (tmp_path / "mine.yaml").read_text() == "precious"
    assert carousel("init", "classify", tmp_path / "mine.yaml", "--overwrite").code == 0
    assert "hidden_size: 128" in (tmp_path / "mine.yaml").read_text()
    assert "unknown task 'clasify'. Did you mean 'classify'?" in carousel("init", "clasify").refused()
    assert "cannot be written" in carousel("init", "classify", tmp_path / "no" / "mine.yaml").refused()


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_file_in_order(carousel, data):
    said = carousel("check", data / "train.tsv", "--valid", data / "valid.tsv")
    assert (said.code, said.err) == (0, "")
    rows = {row[0]: row[1:] for row in (re.split(r" {2,}", line) for line in said.out.splitlines())}
    assert rows["what"] == ["train.tsv", "valid.tsv"]
    assert rows["records"] == ["100", "30"]
    assert rows["labels"] == ["2", "2"]
    assert rows["text in"] == ["text", "text"]
    assert "good" in rows
    assert "bad" in rows


def test_check_as_json(carousel, data):
    said = carousel("check", data / "train.tsv", "--valid", data / "train.tsv", "--json")
    found = json.loads(said.out)
    assert said.code == 0
    assert found["faults"] == []
    assert [file["records"] for file in found["files"]] == [100, 100]
    assert found["files"][1]["overlap"] == 100
    assert any("also in" in warning for warning in found["files"][1]["warnings"])
    assert sum(found["files"][0]["labels"].values()) == 100


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("text\tlabel\na film\tgood\na plot\tgood\n", "all labels are the same"),
        ("text\nfilm\nplot\n", "no record has a label"),
        ("text\tlabel\na film\tgood\nbroken\nb\tbad\n", "1 records cannot be read"),
        (b"text\tlabel\na film\tgood\ncaf\xe9\tbad\nfilm\tbad\n", "cannot be read"),
        ("text\tlabel\n", "nothing to read"),
    ],
)
def test_a_file_of_no_use_is_told_and_exits_2(carousel, tmp_path, content, fault):
    file = tmp_path / "data.tsv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = carousel("check", file)
    assert said.code == 2
    assert fault in said.err
    assert "Traceback" not in said.err
    assert json.loads(carousel("check", file, "--json").out)["faults"]


def test_what_only_the_validation_file_has(carousel, data, tmp_path):
    (tmp_path / "valid.tsv").write_text("text\tlabel\na film\tgodo\ndull\tbad\n")
    said = carousel("check", data / "train.tsv", "--valid", tmp_path / "valid.tsv")
    assert said.code == 2
    assert "holds labels" in said.err
    assert "godo" in said.err


def test_check_needs_a_file_that_is_there(carousel, tmp_path):
    assert "there is no such file" in carousel("check", tmp_path / "missing.tsv").refused()
    (tmp_path / "empty.tsv").touch()
    said = carousel("check", tmp_path / "empty.tsv")
    assert said.code == 2
    assert "Traceback" not in said.err


# --- encode -----------------------------------------------------------------------------------------------------------


def test_vectors_in_every_form(carousel, run_dir, tmp_path):
    (tmp_path / "texts.txt").write_text("a dull plot\n\nmoving film\n")
    said = carousel("encode", run_dir, tmp_path / "texts.txt")
    assert (said.code, said.err) == (0, "")
    lines = np.array([json.loads(line)["vector"] for line in said.out.splitlines()], dtype=np.float32)
    assert lines.shape == (3, 16)
    for name in ("vectors.npy", "vectors.jsonl"):
        said = carousel("encode", run_dir, tmp_path / "texts.txt", "--out", tmp_path / name)
        assert (said.code, said.out) == (0, f"{tmp_path / name}: 3 vectors of 16 numbers\n")
    array = np.load(tmp_path / "vectors.npy", allow_pickle=False)
    assert array.dtype == np.float32
    assert np.array_equal(array, lines)
    again = [json.loads(line)["vector"] for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert np.array_equal(np.array(again, dtype=np.float32), lines)
    assert np.array_equal(Classifier.load(run_dir).encode(["a dull plot", "", "moving film"]), lines)


def test_vectors_have_to_go_somewhere(carousel, run_dir, tmp_path):
    assert "no place for vectors" in carousel("encode", run_dir, "x", "--out", tmp_path / "x.csv").refused()
    assert "no place for vectors" in carousel("encode", run_dir, "x", "--out", tmp_path / "no" / "x.npy").refused()
    assert "not a run directory" in carousel("encode", tmp_path).refused()
