"""``carousel crossvalidate``: folds, their table, Ctrl-C and ``--resume``."""

import json

import pytest

from carousel.tasks import Classifier


@pytest.fixture
def words(data, tmp_path, quick):
    return ["classify", "--train", data / "train.tsv", "--out", tmp_path / "cv", "--folds", "3", *quick, "--epochs", "1"]


def test_folds_and_their_mean_are_shown(carousel, words, tmp_path):
    found = carousel("crossvalidate", *words)
    assert found.code == 0
    lines = [line.split() for line in found.out.splitlines()]
    assert lines[0] == ["fold", "records", "best", "epoch", "minutes", "accuracy", "macro_f1", "loss"]
    assert [line[:2] for line in lines[1:4]] == [["1", "34"], ["2", "33"], ["3", "33"]]
    saved = json.loads((tmp_path / "cv" / "crossvalidation.json").read_text())
    assert lines[4] == ["mean", *(f"{saved['scores'][name]['value']:.4f}" for name in ("accuracy", "macro_f1", "loss"))]
    assert "too narrow" in found.err
    assert (tmp_path / "cv" / "fold-3" / "model.safetensors").is_file()
    assert "already there" in carousel("crossvalidate", *words).refused()
    again = carousel("crossvalidate", *words, "--resume", "--json")
    assert json.loads(again.out)["scores"] == saved["scores"]


def test_interrupted_it_says_how_to_go_on(carousel, words, monkeypatch):
    fit, calls = Classifier.fit, []

    def interrupted(self, X, **more):
        calls.append(more)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, X, **more)

    monkeypatch.setattr(Classifier, "fit", interrupted)
    found = carousel("crossvalidate", *words)
    assert found.code == 130
    command = found.err.strip().splitlines()[-1].split()
    assert command[:2] == ["carousel", "crossvalidate"]
    assert command[-1] == "--resume"
    done = carousel(*command[1:], "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["results"]) == 3
    assert len(calls) == 4


def test_mistakes_are_refused(carousel, words, data):
    assert "takes no --valid" in carousel("crossvalidate", *words, "--valid", data / "valid.tsv").refused()
    assert "at least 2 folds" in carousel("crossvalidate", *words, "--folds", "1").refused()
    assert "needs --out" in carousel("crossvalidate", "classify", "--train", data / "train.tsv").refused()
    assert "needs --train" in carousel("crossvalidate", "classify", "--out", "x").refused()
    assert "unknown option '--fold'" in carousel("crossvalidate", *words, "--fold", "3").refused()
    assert "unknown task" in carousel("crossvalidate", "classifi").refused()


def test_help_names_the_options_of_folds_and_of_the_task(carousel, capsys):
    with pytest.raises(SystemExit) as ended:
        carousel("crossvalidate", "classify", "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: carousel crossvalidate classify")
    for option in ("--folds", "--fold_seed", "--hidden_size", "--epochs"):
        assert option in shown
