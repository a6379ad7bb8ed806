"""Taggers side by side: every method learns what can be learned, and one that fails does not stop the rest."""

import json
import random

import pytest

from carousel.cli.main import main
from carousel.errors import ConfigError, DataError, NotFittedError
from carousel.tasks import Tagger
from carousel.tasks.tag import comparison
from carousel.tasks.tag.comparison import METHODS, compare_taggers
from carousel.tasks.tag.hmm_tagger import HMMTagger
from carousel.tasks.tag.measures import TagEvaluation

QUICK = {
    "hidden_size": 12, "embedding_size": 12, "characters": "none", "batch_size": 8, "epochs": 8, "lr": 0.03,
    "dropout": 0.1, "threads": 1, "progress": False, "device": "cpu",
}  # fmt: skip
FIRST, LAST = ["Anna", "Bert", "Carla", "Dora", "Emil"], ["Kant", "Lang", "Mohr", "Nett"]
PLACES = ["Rome", "Oslo", "Bonn", "Cairo"]


def sentences(count, seed):
    """Names of one or two words, and places."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        name = [draw.choice(FIRST)] + ([draw.choice(LAST)] if draw.random() < 0.5 else [])
        words = [*name, draw.choice(["sees", "likes"]), draw.choice(PLACES), draw.choice([".", "today"])]
        found.append((words, ["B-PER", *["I-PER"] * (len(name) - 1), "O", "B-LOC", "O"]))
    return found


TRAIN, VALID, TEST = sentences(80, 1), sentences(20, 2), sentences(30, 3)


def quick(**options):
    return Tagger(**QUICK | options)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "all"
    methods = ["hmm", "perceptron", "svm", "feature_crf", "crf"]
    return out, compare_taggers(quick(), TRAIN, VALID, TEST, methods=methods, out=out, minutes=5)


def test_every_method_learns(found):
    _, table = found
    assert [row.name for row in table.rows] == ["hmm", "perceptron", "svm", "feature_crf", "lstm+crf"]
    for row in table.rows:
        assert row.error is None
        assert row.scores["f1"]["value"] > 0.9, row
        assert row.scores["f1"]["low"] <= row.scores["f1"]["value"] <= row.scores["f1"]["high"]
        assert row.train_seconds > 0
        assert row.cpu_seconds > 0
        assert row.tokens_per_second > 0
        assert row.parameters > 10
        # Four bytes a number, or eight in the hidden Markov model; names of words beside them.
        assert row.model_bytes > 4 * row.parameters
    assert table.data["train"] == {"sentences": 80, "tokens": sum(len(words) for words, _ in TRAIN)}
    assert (table.measure, table.data["scheme"]) == ("f1", "bio")


def test_networks_are_named_by_their_cell(monkeypatch, tmp_path):
    runs = []

    def fit(self, X, *, valid, out):
        runs.append((self.options.output, self.options.cell, self.options.loss, self.training.max_minutes, len(X), len(valid)))
        raise RuntimeError(f"{out.name} is not trained here")

    monkeypatch.setattr(Tagger, "fit", fit)
    model = quick(loss="margin", cell="mgu")
    cells = ["gru", "indrnn"]
    table = compare_taggers(model, TRAIN, VALID, methods=["softmax", "crf"], cells=cells, out=tmp_path / "out", minutes=2)
    assert [row.name for row in table.rows] == ["mgu+softmax", "mgu+crf", "gru+crf", "indrnn+crf"]
    assert [row.error for row in table.rows] == [f"RuntimeError: {row.name} is not trained here" for row in table.rows]
    assert runs == [
        ("softmax", "mgu", "likelihood", 2, 80, 20),
        ("crf", "mgu", "margin", 2, 80, 20),
        ("crf", "gru", "margin", 2, 80, 20),
        ("crf", "indrnn", "margin", 2, 80, 20),
    ]


def test_what_is_written(found):
    out, table = found
    kept = json.loads((out / "comparison.json").read_text())
    assert kept == json.loads(json.dumps(table.to_dict()))
    text = (out / "comparison.txt").read_text()
    assert text == table.text()
    assert text.splitlines()[0].split()[:3] == ["method", "f1", "[95"]
    assert "test: 30 sentences" in text
    assert "lstm+crf: best epoch" in text
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    words = [words for words, _ in TEST]
    model = Tagger.load(out / "lstm+crf")
    again = TagEvaluation(words, [tags for _, tags in TEST], model.predict(words), scheme="bio").scores()
    row = next(row for row in table.rows if row.name == "lstm+crf")
    assert again["f1"] == pytest.approx(row.scores["f1"]["value"])
    from carousel.structured import FeatureCRF

    linear = FeatureCRF.load(out / "feature_crf")
    again = TagEvaluation(words, [tags for _, tags in TEST], linear.predict(words), scheme="bio").scores()
    assert again["f1"] == pytest.approx(next(r for r in table.rows if r.name == "feature_crf").scores["f1"]["value"])


def test_one_that_fails_says_why_and_the_rest_goes_on(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("there is not enough memory")

    monkeypatch.setattr(HMMTagger, "fit", fail)
    table = compare_taggers(quick(), TRAIN, VALID, methods=["hmm", "perceptron"], out=tmp_path / "out")
    assert table.rows[0].error == "MemoryError: there is not enough memory"
    assert table.rows[1].scores["f1"]["value"] > 0.8
    assert "failed: MemoryError" in (tmp_path / "out" / "comparison.txt").read_text()
    assert table.data["test"] == table.data["valid"]


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("carousel.structured.StructuredPerceptron.fit", interrupt)
    table = compare_taggers(quick(), TRAIN, VALID, methods=["hmm", "perceptron", "svm"], out=tmp_path / "out")
    assert table.interrupted
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert ([row["name"] for row in kept["rows"]], kept["interrupted"]) == (["hmm"], True)


def test_plain_tags_and_a_held_out_tenth(tmp_path):
    pairs = [(words, ["N" if word[0].isupper() else "X" for word in words]) for words, _ in TRAIN]
    table = compare_taggers(quick(), pairs, methods=["hmm", "feature_crf"], limit=50, out=tmp_path / "out")
    assert table.measure == "accuracy"
    assert [table.data[part]["sentences"] for part in ("train", "valid", "test")] == [45, 5, 5]
    for row in table.rows:
        assert row.scores["accuracy"]["value"] > 0.95
        assert "f1" not in row.scores


def test_other_schemes_and_segmentation(tmp_path):
    iob1 = [(words, ["I" + tag[1:] if tag[0] == "B" else tag for tag in tags]) for words, tags in TRAIN]
    table = compare_taggers(quick(), iob1, methods=["hmm", "feature_crf"], out=tmp_path / "iob1")
    assert table.data["scheme"] == "iob1"
    assert all(row.scores["f1"]["value"] > 0.9 and row.scores["accuracy"]["value"] > 0.9 for row in table.rows)
    words = [["".join(word) for word in words] for words, _ in TRAIN]
    table = compare_taggers(quick(unit="char"), words, methods=["hmm", "feature_crf"], out=tmp_path / "words")
    assert table.data["scheme"] == "bmes"
    assert [row.error for row in table.rows] == [None] * 2
    assert table.rows[1].scores["f1"]["value"] > 0.9


def test_what_cannot_be_is_refused(tmp_path):
    model = quick()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    for options, words in (
        ({"methods": ["hmmm"]}, "Did you mean 'hmm'"),
        ({"methods": []}, "no method"),
        ({"methods": ["crf"], "cells": ["lstm"]}, "twice"),
        ({"cells": ["gruu"]}, "gruu"),
        ({"minutes": 0}, "minutes must be positive"),
        ({"limit": 1}, "limit"),
        ({"out": tmp_path / "full", "overwrite": True}, "something else"),
    ):
        with pytest.raises(ConfigError, match=words):
            compare_taggers(model, TRAIN, VALID, **{"out": tmp_path / "new", "methods": ["hmm"]} | options)
    assert (tmp_path / "full" / "thesis.txt").exists()
    with pytest.raises(DataError, match="only one sentence"):
        compare_taggers(model, TRAIN[:1], out=tmp_path / "new")
    for overwrite in (False, True):
        compare_taggers(model, TRAIN, VALID, methods=["hmm"], out=tmp_path / "new", overwrite=overwrite)
    with pytest.raises(ConfigError, match="a comparison already"):
        compare_taggers(model, TRAIN, VALID, methods=["hmm"], out=tmp_path / "new")


def test_words_that_are_new_go_by_their_endings():
    draw = random.Random(0)
    made = ["".join(draw.choice("abcdefgh") for _ in range(6)) for _ in range(200)]
    X = [[stem + draw.choice(["ing", "ness"]) for _ in range(2)] for stem in made]
    model = HMMTagger().fit(X, [["V" if word.endswith("ing") else "N" for word in words] for words in X])
    assert model.predict([["zonking"], [], ["prettiness", "walking"]]) == [["V"], [], ["N", "V"]]
    assert model.num_parameters > 4
    with pytest.raises(NotFittedError):
        HMMTagger().predict([["a"]])
    for X, y in (([], []), ([["a"]], [["N", "V"]])):
        with pytest.raises(DataError, match="a tag for each word"):
            HMMTagger().fit(X, y)


@pytest.fixture
def files(tmp_path):
    for name, pairs in (("train", TRAIN), ("dev", VALID)):
        rows = ["\n".join(f"{word} {tag}" for word, tag in zip(*pair, strict=True)) for pair in pairs]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(rows) + "\n")
    return tmp_path


def test_the_command(files, capsys, monkeypatch):
    words = ["compare", "--task", "tag", "--train", f"{files}/train.txt", "--valid", f"{files}/dev.txt", "--threads", "1"]
    assert main([*words, "--out", f"{files}/out", "--methods", "hmm,perceptron", "--limit", "60", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in kept["rows"]] == ["hmm", "perceptron"]
    assert kept["data"]["train"]["sentences"] == 60
    assert main([*words, "--out", f"{files}/out", "--methods", "hmm", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("hmm")
    for more, message in (
        (["--out", f"{files}/out"], "a comparison already"),
        ([], "needs --out"),
        (["--out", f"{files}/x", "--methds", "hmm"], "--methods"),
        (["--out", f"{files}/x", "--methods", "nix"], "unknown method"),
        (["--out", f"{files}/x", "--column", "7"], "train.txt:1"),
        (["--out", f"{files}/x", "--resume"], "no --resume"),
    ):
        assert main([*words, *more]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert "Traceback" not in said
    assert main(["compare", "--task", "lm"]) == 2
    assert "one of tag" in capsys.readouterr().err
    monkeypatch.setattr(comparison, "HMMTagger", lambda: (_ for _ in ()).throw(RuntimeError("no")))
    assert main([*words, "--out", f"{files}/fails", "--methods", "hmm"]) == 2
    assert "hmm failed: RuntimeError: no" in capsys.readouterr().err


def test_all_methods_are_offered(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--task", "tag", "--help"])
    assert ",".join(METHODS) in capsys.readouterr().out
