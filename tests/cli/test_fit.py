"""`carousel fit`, `evaluate`, `predict` on real files: what they print, write and refuse."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "carousel"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fit_words(data, out, *more):
    return ["fit", "classify", "--train", data / "train.tsv", "--valid", data / "valid.tsv", "--out", out, *more]


def test_a_strangers_first_minutes(data, tmp_path, own_cell, quick):
    """The commands of the README's first screen, each in a process of its own."""

    def run(*words, **more):
        return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, **more)

    code = ["--code", own_cell]
    options = [*code, "--cell", "MinimalGatedUnit", "--bidirectional", "true", "--summary", "attention", *quick[:-2]]
    fitted = run(*fit_words(data, "runs/mine", *options))
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stdout.startswith("measure")
    assert fitted.stdout.endswith("run directory: runs/mine\n")
    assert "epoch 3/3" in fitted.stderr
    assert f"carousel evaluate runs/mine --data FILE --json --code {own_cell}" in fitted.stderr

    measured = run("evaluate", "runs/mine", "--data", data / "valid.tsv", "--json", *code)
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout.count("\n") == 1
    scores = json.loads(measured.stdout)
    assert list(scores) == ["accuracy", "macro_f1", "loss", "count"]
    assert scores["accuracy"] > 0.8
    assert "confusion-valid.png" in names(tmp_path / "runs" / "mine")

    answer = run("predict", "runs/mine", "-", *code, input="a moving film\n")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("good\t")
    assert answer.stdout.endswith("\ta moving film\n")


def test_predict_prints_one_json_object_for_every_line(carousel, run_dir, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a dull plot\n\nein schöner Film 🎬\n".encode()), "utf-8"))
    said = carousel("predict", run_dir, "-", "--json")
    assert (said.code, said.err) == (0, "")
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [list(record) for record in records] == [["label", "probabilities", "attention"]] * 3
    assert [[token for token, _ in record["attention"]] for record in records] == [
        ["a", "dull", "plot"],
        [],
        ["ein", "schöner", "film", "🎬"],
    ]
    assert records[0]["label"] == "bad"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("texts.txt", "a dull plot\nmoving film\n", []),
        ("texts.tsv", "text\tlabel\na dull plot\tbad\nmoving film\tgood\n", []),
        ("texts.csv", "id,text\n1,a dull plot\n2,moving film\n", []),
        ("texts.jsonl", '{"text": "a dull plot"}\n{"text": "moving film"}\n', []),
        ("reviews.csv", "review\na dull plot\nmoving film\n", ["--text_field", "review"]),
        ("odd.data", "text\tid\na dull plot\t1\nmoving film\t2\n", ["--format", "tsv"]),
    ],
)
def test_predict_reads_every_format(carousel, run_dir, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    said = carousel("predict", run_dir, tmp_path / name, *words)
    assert [line.split("\t")[::2] for line in said.out.splitlines()] == [["bad", "a dull plot"], ["good", "moving film"]]


def test_evaluate_reads_other_columns(carousel, run_dir, tmp_path):
    (tmp_path / "test.csv").write_text("review,stars\na moving film,good\ndull,bad\n")
    said = carousel("evaluate", run_dir, "--data", tmp_path / "test.csv", "--text_field", "review", "--label_field", "stars")
    assert [line.split() for line in said.out.splitlines()][1] == ["accuracy", "1.0000"]


def test_options_come_from_a_file_and_the_command_line_wins(carousel, data, tmp_path, quick):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"train: {data / 'train.tsv'}\nvalid: {data / 'valid.tsv'}\ncell: peephole_lstm\nlr: 1e-2\nhidden_size: 5\n"
        "cell_options: {output_gate: old}\ntrainer: {limit_train_batches: 1}\n"
    )
    words = ["--config", config, *quick, "--hidden_size", "6", "--trainer.accumulate_grad_batches", "2", "--epochs=1"]
    said = carousel("fit", "classify", "--out", tmp_path / "run", *words)
    assert said.code == 0, said.err
    written = (tmp_path / "run" / "config.yaml").read_text()
    for line in (
        "task: classify",
        "cell: peephole_lstm",
        "  output_gate: old",
        "lr: 0.03",
        "hidden_size: 6",
        "epochs: 1",
        "  limit_train_batches: 1",
        "  accumulate_grad_batches: 2",
    ):
        assert f"\n{line}\n" in written, line
    again = carousel("fit", "classify", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "config.yaml").read_text() == written
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_help_shows_every_option_with_its_default(carousel, capsys):
    from carousel.tasks import Classifier

    with pytest.raises(SystemExit) as ended:
        carousel("fit", "classify", "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for option in Classifier.option_list():
        assert f"\n  --{option.name} " in said
    for heading in ("files:", "network:", "data:", "training:"):
        assert f"\n{heading}\n" in said
    assert "[128]" in said
    assert "[attention]" in said


BAD_OPTIONS = [
    (["--hiden_size", "3"], "unknown option '--hiden_size'. Did you mean '--hidden_size'?"),
    (["--hidden-size", "3"], "unknown option '--hidden-size'. Did you mean '--hidden_size'?"),
    (["--tariner.precision", "3"], "unknown option '--tariner.precision'. Did you mean '--trainer'?"),
    (["--hidden_size", "many"], "option hidden_size: not a possible value.\n  got:      many\n  expected: a whole number"),
    (["--hidden_size"], "--hidden_size: expected one argument"),
    (["--hidden_size", "0"], "option hidden_size: out of range"),
    (["--summary", "atention"], "option summary: unknown value 'atention'. Did you mean 'attention'?"),
    (["--bidirectional", "perhaps"], "option bidirectional: not a possible value"),
    (["--cell", "lsmt"], "unknown cell 'lsmt'. Did you mean 'lstm'?"),
    (["--cell", "os:system"], "option cell: 'os:system' is not the name of a cell, and nothing is imported"),
    (["--cell", "gru", "--cell_options.bias", "1"], "the cell gru has no options; got 'bias'"),
    (["--cell_options.forget_bais", "1"], "Did you mean 'forget_bias'?"),
    (["--engine", "eagre"], "unknown engine 'eagre'. Did you mean 'eager'?"),
    (["--optimizer", "adm"], "unknown optimizer 'adm'. Did you mean 'adam'?"),
    (["--trainer.precison", "32"], "unknown trainer option 'precison'. Did you mean 'precision'?"),
    (["--overwrite", "--resume"], "overwrite and resume exclude each other"),
    (["--format", "xml"], "option format: unknown value 'xml'"),
    (["surplus"], "unrecognized arguments: surplus"),
    (["--code", "missing.py"], "--code missing.py: there is no such file"),
    (["--config", "missing.yaml"], "missing.yaml: No such file or directory"),
]


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS, ids=[" ".join(words) for words, _ in BAD_OPTIONS])
def test_bad_options_are_one_message_and_leave_nothing(carousel, data, tmp_path, monkeypatch, quick, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in carousel(*fit_words(data, tmp_path / "run", *quick, *words)).refused()
    assert names(tmp_path) == []


def test_unknown_task_names_the_nearest(carousel):
    assert "unknown task 'clasify'. Did you mean 'classify'?" in carousel("fit", "clasify", "--train", "x").refused()
    assert "the following arguments are required: TASK" in carousel("fit").refused()


def test_fit_needs_data_and_a_place(carousel, data):
    assert "fit classify needs --train" in carousel("fit", "classify", "--out", "x").refused()
    assert "fit classify needs --out" in carousel("fit", "classify", "--train", data / "train.tsv").refused()


BAD_FILES = [
    ("empty.tsv", "", "the file holds no examples"),
    ("column.tsv", "label\ttexts\ngood\ta\n", "column 'text' is missing. Did you mean 'texts'?"),
    ("column.csv", "text;label\na;good\n", "column 'text' is missing"),
    ("fields.tsv", "label\ttext\ngood\n", ":2: the record has too few fields"),
    ("line.txt", "good a film\nbad\n", ":2: the line does not have both a label and a text"),
    ("broken.jsonl", '{"label": "a", "text": "b"}\n{"label": \n', ":2: the line is not valid JSON"),
    ("one.tsv", "label\ttext\ngood\ta\ngood\tb\n", "hold only one label"),
    ("latin.tsv", b"label\ttext\ngood\tsch\xf6n\n", ":2: the text is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
@pytest.mark.parametrize("overwrite", [False, True])
def test_bad_files_are_one_message_and_leave_nothing(
    carousel, data, run_dir, tmp_path, quick, name, content, message, overwrite
):
    bad = tmp_path / name
    bad.write_bytes(content.encode() if isinstance(content, str) else content)
    out = tmp_path / "run"
    if overwrite:
        shutil.copytree(run_dir, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = ["--train", bad, "--valid", data / "valid.tsv", "--out", out, *quick, *["--overwrite"] * overwrite]
    refused = carousel("fit", "classify", *words).refused()
    assert str(bad) in refused
    assert message in refused
    assert names(tmp_path) == sorted([name, *["run"] * overwrite])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_missing_file_and_existing_run(carousel, data, run_dir, tmp_path, quick):
    words = ["--train", tmp_path / "trian.tsv", "--out", tmp_path / "run", *quick]
    assert "there is no such file" in carousel("fit", "classify", *words).refused()
    before = names(run_dir)
    refused = carousel(*fit_words(data, run_dir, *quick)).refused()
    assert f"{run_dir}: a run is already there.\n  try:      --overwrite to replace it" in refused
    assert names(run_dir) == before


def test_existing_run_is_replaced_when_asked(carousel, data, run_dir, tmp_path, quick):
    out = shutil.copytree(run_dir, tmp_path / "run")
    said = carousel(*fit_words(data, out, *quick, "--overwrite", "--hidden_size", "3", "--epochs", "1"))
    assert said.code == 0
    assert "hidden_size: 3\n" in (out / "config.yaml").read_text()
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlr: [1,\n", "c.yaml:3: not valid YAML"),
        ("seed: 1\nhiden_size: 3\n", "c.yaml:2: unknown option 'hiden_size'. Did you mean 'hidden_size'?"),
        ("seed: 1\nhidden_size: many\n", "c.yaml:2: option hidden_size: not a possible value."),
        ("summary: [last]\n", "c.yaml:1: option summary: unknown value"),
        ("task: translate\n", "c.yaml:1: a configuration of another task"),
        ("overwrite: true\n", "c.yaml:1: unknown option 'overwrite'"),
    ],
)
def test_bad_configuration_names_file_and_line(carousel, data, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    refused = carousel(*fit_words(data, tmp_path / "run", "--config", tmp_path / "c.yaml")).refused()
    assert message in refused
    assert names(tmp_path) == ["c.yaml"]


@pytest.mark.parametrize("verb", [["evaluate", "--data", "x.tsv"], ["predict"]])
def test_what_is_not_a_run_is_refused(carousel, tmp_path, verb):
    words = [verb[0], tmp_path, *verb[1:]]
    assert "not a run directory" in carousel(*words).refused()
    words[1] = tmp_path / "missing"
    assert "no such directory" in carousel(*words).refused()


def test_evaluate_and_predict_refuse_bad_data(carousel, run_dir, tmp_path):
    (tmp_path / "empty.tsv").touch()
    assert "holds no examples" in carousel("evaluate", run_dir, "--data", tmp_path / "empty.tsv").refused()
    assert "holds no examples" in carousel("predict", run_dir, tmp_path / "empty.tsv").refused()
    (tmp_path / "label.tsv").write_text("label\ttext\ngodo\ta\n")
    assert (
        "label.tsv:2: unknown label 'godo'. Did you mean 'good'?"
        in carousel("evaluate", run_dir, "--data", tmp_path / "label.tsv", "--json").refused()
    )


def test_interrupted_fit_leaves_a_usable_model_and_goes_on(carousel, data, tmp_path, quick):
    """Ctrl-C needs a process of its own."""
    out = tmp_path / "run"
    words = [*COMMAND, *map(str, fit_words(data, out, *quick)), "--epochs", "10000", "--patience", "null"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"carousel fit classify --out {out} --resume" in stderr
    assert "accuracy" in stdout
    assert carousel("evaluate", out, "--data", data / "valid.tsv", "--json").code == 0
    done = len((out / "metrics.csv").read_text().splitlines()) - 1
    resumed = carousel("fit", "classify", "--out", out, "--resume", "--epochs", str(done + 2), "--progress", "false")
    assert resumed.code == 0, resumed.err
    epochs = [line.split(",")[0] for line in (out / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == [str(number + 1) for number in range(done + 2)]
    assert names(tmp_path) == ["run"]


def test_overwriting_fit_that_is_interrupted_at_once_does_not_cost_the_old_run(data, run_dir, tmp_path, quick):
    out = shutil.copytree(run_dir, tmp_path / "run")
    expected = (out / "model.safetensors").read_bytes()
    slow = ["--hidden_size", "64", "--num_layers", "2", "--batch_size", "1"]
    words = [*COMMAND, *map(str, fit_words(data, out, *quick[:-2], *slow, "--overwrite"))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if "hidden_size: 64" in _text(out / "config.yaml") and (out / "last" / "trainer.json").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "Traceback" not in stderr
    assert "the run that was there before is put back" in stderr
    assert (out / "model.safetensors").read_bytes() == expected
    assert names(tmp_path) == ["run"]


def _text(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def test_resume_needs_the_same_network(carousel, run_dir, tmp_path):
    out = shutil.copytree(run_dir, tmp_path / "run")
    refused = carousel("fit", "classify", "--out", out, "--resume", "--hidden_size", "9").refused()
    assert "option hidden_size: cannot change when a run goes on" in refused
    assert (
        "no run to resume here" in carousel("fit", "classify", "--train", "x", "--out", tmp_path / "new", "--resume").refused()
    )
