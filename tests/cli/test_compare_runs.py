"""``carousel compare``: what is printed, and what is refused."""

import json
import shutil

import pytest

from carousel.cli.main import main


@pytest.fixture(scope="module")
def other(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("other") / "gru"
    words = ["fit", "classify", "--train", data / "train.tsv", "--valid", data / "valid.tsv", "--out", out, "--cell", "gru"]
    words += ["--hidden_size", "4", "--embedding_size", "4", "--epochs", "2", "--threads", "1", "--device", "cpu"]
    assert main([str(word) for word in [*words, "--progress", "false"]]) == 0
    return out


def test_runs_stand_side_by_side(carousel, run_dir, other):
    found = carousel("compare", run_dir, other)
    assert found.code == 0
    lines = [line.split() for line in found.out.splitlines()]
    assert lines[0] == ["run", "gru"]
    table = {line[0]: line[1:] for line in lines if line}
    saved = [json.loads((run / "report.json").read_text())["scores"]["accuracy"]["value"] for run in (run_dir, other)]
    assert table["accuracy"] == [f"{value:.4f}" for value in saved]
    assert table["cell"] == ["lstm", "gru"]
    assert table["hidden_size"] == ["8", "4"]
    assert "device" not in table


def test_the_same_data_tell_whether_a_difference_is_clear(carousel, run_dir, other, data):
    found = json.loads(carousel("compare", run_dir, other, "--data", data / "valid.tsv", "--json").out)
    assert [run["path"] for run in found["runs"]] == [str(run_dir), str(other)]
    assert found["settings"]["cell"] == ["lstm", "gru"]
    first, second = found["data"]["models"]
    difference = second["differences"]["accuracy"]
    assert difference["value"] == pytest.approx(second["scores"]["accuracy"]["value"] - first["scores"]["accuracy"]["value"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert 0 <= second["p_value"] <= 1
    alone = json.loads(carousel("evaluate", other, "--data", data / "valid.tsv", "--json").out)
    assert second["scores"]["accuracy"]["value"] == pytest.approx(alone["accuracy"])
    shown = carousel("compare", run_dir, other, "--data", data / "valid.tsv").out
    assert "McNemar's p" in shown
    assert f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]" in shown


def test_one_run_alone_is_shown(carousel, run_dir, data):
    found = carousel("compare", run_dir, "--data", data / "valid.tsv")
    assert found.code == 0
    assert "McNemar" not in found.out
    assert "setting" not in found.out


def test_curves_are_drawn(carousel, run_dir, other, tmp_path):
    found = carousel("compare", run_dir, other, "--plot", tmp_path / "curves.svg")
    assert found.code == 0
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_what_cannot_be_compared_is_refused(carousel, run_dir, other, tmp_path):
    assert "no such directory" in carousel("compare", run_dir, tmp_path / "missing").refused()
    assert "can be read only once" in carousel("compare", run_dir, other, "--data", "-").refused()
    assert "RUN" in carousel("compare").refused()
    assert "cannot be drawn" in carousel("compare", run_dir, "--plot", tmp_path / "a.doc").refused()
    assert "no folder" in carousel("compare", run_dir, "--plot", tmp_path / "b" / "a.png").refused()
    unknown = tmp_path / "unknown.tsv"
    unknown.write_text("text\tlabel\na film\tugly\n")
    assert "unknown.tsv:2" in carousel("compare", run_dir, other, "--data", unknown).refused()


def test_a_cell_of_ones_own_is_needed_only_by_the_run_that_has_it(carousel, run_dir, data, own_cell, tmp_path, quick):
    out = tmp_path / "own"
    words = ["--train", data / "train.tsv", "--valid", data / "valid.tsv", "--out", out]
    assert carousel("fit", "classify", *words, *quick, "--epochs", "1", "--code", own_cell).code == 0
    assert carousel("compare", run_dir, out).code == 0  # their files are enough
    assert "--code" in carousel("compare", run_dir, out, "--data", data / "valid.tsv").refused()
    found = carousel("compare", run_dir, out, "--data", data / "valid.tsv", "--code", own_cell)
    assert found.code == 0
    assert "McNemar's p" in found.out


def test_a_moved_run_is_still_a_run(carousel, run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "elsewhere")
    assert carousel("compare", copy, run_dir).out.splitlines()[0].split() == ["elsewhere", "run"]
