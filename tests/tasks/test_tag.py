"""The tagger: what it learns, how it reads and writes, what it refuses, how it is saved."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from carousel.cli.fit import make_model, parse_options, task_parser
from carousel.cli.main import main
from carousel.data.tagged import TaggedSentence, faults
from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError
from carousel.tasks import Tagger
from carousel.tasks.registry import recipe
from carousel.tasks.tag import TaggerOptions
from carousel.tasks.tag.inputs import TaggerInputs
from carousel.tasks.tag.tags import TagIndex

QUICK = {
    "hidden_size": 16, "embedding_size": 12, "character_size": 6, "character_hidden": 6, "batch_size": 8, "epochs": 6,
    "lr": 0.02, "dropout": 0.1, "threads": 1, "progress": False, "device": "cpu",
}  # fmt: skip
FIRST, LAST = ["Anna", "Bert", "Carla", "Dora", "Emil"], ["Kant", "Lang", "Mohr", "Nett"]
PLACES = ["Rome", "Oslo", "Bonn", "Cairo"]


def sentences(count, seed):
    """Names of one or two words, and places, told by the words around and by themselves."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        name = [draw.choice(FIRST)] + ([draw.choice(LAST)] if draw.random() < 0.5 else [])
        words = [*name, draw.choice(["sees", "likes"]), draw.choice(PLACES), draw.choice([".", "today"])]
        tags = ["B-PER", *["I-PER"] * (len(name) - 1), "O", "B-LOC", "O"]
        found.append((words, tags))
    return found


def write_columns(path, pairs, end="\n", start="", names=("NN",)):
    rows = [end.join(" ".join([word, *names, tag]) for word, tag in zip(*pair, strict=True)) for pair in pairs]
    path.write_bytes((start + (end + end).join(rows) + end).encode())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tag")
    write_columns(folder / "train.txt", sentences(60, 1))
    write_columns(folder / "dev.txt", sentences(20, 2))
    return folder


@pytest.fixture(scope="module")
def run(files):
    """A run made by the command."""
    options = [f"--{name}={str(value).lower()}" for name, value in (QUICK | {"epochs": 10}).items()]
    code = main(
        ["fit", "tag", "--train", f"{files}/train.txt", "--valid", f"{files}/dev.txt", "--out", f"{files}/run", *options]
    )
    assert code == 0
    return files / "run"


@pytest.fixture(scope="module")
def model(run):
    return Tagger.load(run, device="cpu")


# --- learning and measures --------------------------------------------------------------------------------------------


def test_it_learns_and_measures(run, files, capsys):
    assert main(["evaluate", str(run), "--data", str(files / "dev.txt"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {"accuracy", "count", "precision", "recall", "f1", "known_accuracy"} <= set(scores)
    assert scores["f1"] > 0.9
    assert scores["count"] == sum(len(words) for words, _ in sentences(20, 2))
    rows = (run / "metrics.csv").read_text().splitlines()
    assert "valid_f1" in rows[0]
    assert "_right" not in rows[0]
    best = max(float(row.split(",")[rows[0].split(",").index("valid_f1")]) for row in rows[1:])
    assert best == pytest.approx(scores["f1"], abs=1e-6)  # what training watches is what is measured


def test_answers_are_written_as_the_data_is(model):
    pairs = sentences(20, 2)
    answers = model.predict([words for words, _ in pairs])
    assert {tag for tags in answers for tag in tags} <= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}
    assert not any(faults(tags, "bio") for tags in answers)
    assert model.score([w for w, _ in pairs], [t for _, t in pairs]) == pytest.approx(model.evaluate(pairs)["accuracy"])
    assert model.classes_.tolist() == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def test_iob1_comes_back_as_iob1():
    data = [(["a", "b", "c", "d"], ["I-X", "B-X", "O", "I-Y"])] * 12
    model = Tagger(**QUICK | {"epochs": 8}).fit(data, valid=data[:2])
    assert model.inputs_.tags.data_scheme == "iob1"
    assert model.inputs_.tags.scheme == "bioes"
    assert model.predict([["a", "b", "c", "d"]]) == [["I-X", "B-X", "O", "I-Y"]]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "perceptron"},
        {"loss": "margin", "characters": "none", "affixes": 2, "shape": True},
        {"output": "softmax", "characters": "cnn", "bigrams": True, "cell": "gru"},
    ],
    ids=["perceptron", "margin", "softmax"],
)
def test_other_losses_and_features_learn(options):
    model = Tagger(**QUICK | {"epochs": 5} | options).fit(sentences(50, 1), valid=sentences(10, 3))
    scores = model.evaluate(sentences(20, 2))
    assert scores["f1"] > 0.8
    answers = model.predict([words for words, _ in sentences(20, 2)])
    assert not any(faults(tags, "bio") for tags in answers)  # what the scheme forbids is not answered


def test_words_are_cut_from_characters(tmp_path, capsys):
    draw, words = random.Random(1), ["ab", "c", "dea", "fb", "ceda"]
    lines = [" ".join(draw.choice(words) + "/n" for _ in range(6)) for _ in range(80)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:60]) + "\n")
    (tmp_path / "dev.txt").write_text("\n".join([*lines[60:], "dea/n fba/n"]) + "\n")
    model = Tagger(**QUICK | {"unit": "char", "epochs": 5}).fit(tmp_path / "train.txt", valid=tmp_path / "dev.txt")
    scores = model.evaluate(tmp_path / "dev.txt")
    assert {"precision", "recall", "f1", "oov_recall", "accuracy", "count"} <= set(scores)
    assert "known_accuracy" not in scores
    assert scores["f1"] > 0.8
    assert model.segment(["abcdea"]) == [["ab", "c", "dea"]]
    model.save(tmp_path / "run")
    (tmp_path / "raw.txt").write_text("cabdea\n\nfbc\n")
    assert main(["predict", str(tmp_path / "run"), "--input", str(tmp_path / "raw.txt")]) == 0
    assert capsys.readouterr().out == "c ab dea\n\nfb c\n"
    loaded = Tagger.load(tmp_path / "run")
    assert loaded.evaluate(tmp_path / "dev.txt") == pytest.approx(scores)


# --- reading and writing ----------------------------------------------------------------------------------------------


def test_the_same_format_comes_back(run, tmp_path, capsys):
    text = "Anna NN O\nsees VB O\nRome NN O\n. . O\n\nBert NN O\nlikes VB O\nOslo NN O\n. . O\n\n"
    (tmp_path / "in.txt").write_text(text)
    assert main(["predict", str(run), str(tmp_path / "in.txt")]) == 0
    out = capsys.readouterr().out
    assert out == text.replace("Anna NN O", "Anna NN B-PER").replace("Rome NN O", "Rome NN B-LOC").replace(
        "Bert NN O", "Bert NN B-PER"
    ).replace("Oslo NN O", "Oslo NN B-LOC")
    assert main(["predict", str(run), str(tmp_path / "in.txt"), "--probabilities"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [row[:3] for row in rows] == [line.split() for line in out.splitlines() if line]
    assert all(0.3 < float(row[3]) <= 1 for row in rows)


def test_columns_without_the_tags_get_them_behind(run, tmp_path, capsys):
    """The training data has three columns; the second of a file with two is no tag, though it is the last."""
    (tmp_path / "in.txt").write_text("Anna NN\nsees VB\nRome NN\n")
    assert main(["predict", str(run), str(tmp_path / "in.txt"), "--format", "columns"]) == 0
    assert capsys.readouterr().out == "Anna NN B-PER\nsees VB O\nRome NN B-LOC\n\n"
    assert main(["evaluate", str(run), "--data", str(tmp_path / "in.txt")]) == 2
    assert "in.txt:1: column 2" in capsys.readouterr().err


def test_raw_text_comes_back_as_words_with_tags(run, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("Anna Kant sees Rome .\nBert likes Bonn today\n")
    assert main(["predict", str(run), str(tmp_path / "in.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Anna/B-PER Kant/I-PER sees/O Rome/B-LOC ./O", "Bert/B-PER likes/O Bonn/B-LOC today/O"]
    assert main(["predict", str(run), str(tmp_path / "in.txt"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["tokens"] == ["Anna", "Kant", "sees", "Rome", "."]
    assert first["spans"] == [[0, 2, "PER", "Anna Kant"], [3, 4, "LOC", "Rome"]]
    assert -5 < first["score"] <= 0
    assert len(first["probabilities"]) == 5
    page = tmp_path / "page.html"
    assert main(["predict", str(run), str(tmp_path / "in.txt"), "--html", str(page)]) == 0
    assert "Kant" in page.read_text()


def test_the_probabilities_are_those_of_all_paths(model):
    (record,) = model.predict_records([["Anna", "Kant", "sees"]])
    network, _ = model._ready()
    ((_, batch),) = list(model._batches([TaggedSentence(("Anna", "Kant", "sees"))]))
    with torch.no_grad():
        chain = network(batch)
        path = chain.best()[0]
        expected = chain.log_likelihood(path).item()
        best = chain.marginals().gather(-1, path[..., None])[0, :, 0]
    assert record["score"] == pytest.approx(expected, abs=1e-5)
    assert record["probabilities"] == pytest.approx(best.tolist(), abs=1e-5)


def test_conllu_keeps_what_is_no_word(tmp_path, capsys):
    row = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_"
    words = [("do", "AUX"), ("not", "PART"), ("go", "VERB")]
    lines = ["# text = don't go", "1-2\tdon't" + "\t_" * 8]
    lines += [row.format(at, *pair) for at, pair in enumerate(words, 1)]
    text = "\n".join([*lines, "3.1\tx" + "\t_" * 8, "", ""])
    (tmp_path / "train.conllu").write_text(text * 10)
    model = Tagger(**QUICK).fit(tmp_path / "train.conllu", out=tmp_path / "run")
    assert model.inputs_.tags.scheme is None
    assert set(model.scores_) >= {"accuracy", "count"}
    assert "f1" not in model.scores_
    bare = text.replace("AUX", "_").replace("PART", "_").replace("VERB", "_")
    (tmp_path / "bare.conllu").write_text(bare)
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "bare.conllu")]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(("end", "start"), [("\r\n", ""), ("\n", "\ufeff"), ("\r\n", "\ufeff")])
def test_line_ends_and_byte_order_marks_change_nothing(model, files, tmp_path, end, start):
    path = write_columns(tmp_path / "dev.txt", sentences(20, 2), end, start)
    assert model.evaluate(path) == model.evaluate(files / "dev.txt")


def test_further_columns_are_read(tmp_path):
    """The word says nothing; the column does."""
    draw = random.Random(4)
    rows = [[draw.choice("xyz"), draw.choice(["P", "Q"])] for _ in range(300)]
    text = "".join(f"{word} {kind} T{kind}\n" + ("\n" if at % 5 == 4 else "") for at, (word, kind) in enumerate(rows))
    (tmp_path / "train.txt").write_text(text)
    model = Tagger(**QUICK | {"features": "1", "characters": "none"}).fit(tmp_path / "train.txt")
    assert model.scores_["accuracy"] > 0.95
    with pytest.raises(DataError, match="column 1 of option features is missing"):
        model.predict([["x", "y"]])
    with pytest.raises(ConfigError, match="holds the tags"):
        Tagger(**QUICK | {"features": "2"}).fit(tmp_path / "train.txt")


def test_vectors_are_where_words_start(tmp_path):
    (tmp_path / "vectors.txt").write_text("Anna 1 2 3\nsees 4 5 6\nunheard 7 8 9\n")
    model = Tagger(**QUICK | {"epochs": 1, "vectors": str(tmp_path / "vectors.txt"), "freeze_vectors": True})
    model.fit(sentences(20, 1), out=tmp_path / "run")
    assert "2 of " in model.inputs_.coverage
    weight = model.network_.front.words.weight
    assert weight[model.inputs_.words.words.encode(["Anna"])[0]].tolist() == [1, 2, 3]
    (tmp_path / "vectors.txt").unlink()  # what was learned is in the run
    assert Tagger.load(tmp_path / "run").predict([["Anna"]]) == model.predict([["Anna"]])


# --- what is refused, what is said ------------------------------------------------------------------------------------


def test_a_tag_that_training_has_not_seen_counts_as_wrong(run, files, tmp_path, capsys):
    pairs = sentences(20, 2)
    pairs[0][1][0] = "B-ORG"
    path = write_columns(tmp_path / "dev.txt", pairs)
    model = Tagger.load(run, device="cpu")
    model.training = replace(model.training, progress=True)
    before = model.evaluate(files / "dev.txt")
    after = model.evaluate(path)
    assert "1 tags are not in the training data" in capsys.readouterr().err
    assert after["accuracy"] == pytest.approx(before["accuracy"] - 1 / before["count"])
    assert after["recall"] < before["recall"]


def test_unseen_tags_in_validation_data_do_no_harm():
    valid = [*sentences(5, 3), (["Anna"], ["B-ORG"])]
    model = Tagger(**QUICK | {"epochs": 1}).fit(sentences(20, 1), valid=valid)
    assert np.isfinite(model.result_.last["valid_loss"])
    assert model.scores_["count"] == sum(len(words) for words, _ in valid)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no sentences"),
        ("\n \n\n", "holds no sentences"),
        ("a\nb\n", "column of the tags is missing"),
        ("a NN B-X\nb NN\n", "train.txt:2"),
        ("a B-X\nb I-X\nc O\n\n" * 4 + "d O\ne I-X\n", "train.txt:18: tag 'I-X' cannot stand here"),
    ],
    ids=["empty", "blank", "no tags", "short row", "inconsistent"],
)
def test_bad_files_are_told_with_their_line(tmp_path, capsys, text, words):
    (tmp_path / "train.txt").write_text(text)
    out = tmp_path / "run"
    code = main(["fit", "tag", "--train", f"{tmp_path}/train.txt", "--out", str(out), "--inconsistent", "error"])
    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert "Traceback" not in error
    assert not out.exists()


def test_inconsistent_tags_are_read_as_conlleval_reads_them():
    data = [TaggedSentence(("a", "b"), tags) for tags in [("O", "I-X"), ("B-X", "I-X"), ("B-X", "I-X")]]
    tags = TagIndex.learn(data, TaggerOptions())
    assert [tags.inside(sentence) for sentence in data[:2]] == [["O", "S-X"], ["B-X", "E-X"]]


def test_wrong_arguments_are_explained(model):
    with pytest.raises(NotFittedError):
        Tagger().predict([["a"]])
    with pytest.raises(DataError, match="list of sentences"):
        model.predict("Anna sees Rome")
    with pytest.raises(DataError, match="item 1 is no sentence"):
        model.predict([["a"], 3])
    with pytest.raises(DataError, match="not of one length"):
        Tagger().fit([["a"]], [["O"], ["O"]])
    with pytest.raises(DataError, match="not one tag for each word"):
        Tagger().fit([["a", "b"]], [["O"]])
    with pytest.raises(ConfigError, match="compares whole sequences"):
        Tagger(output="softmax", loss="margin")
    with pytest.raises(ConfigError, match="do not mark spans"):
        Tagger(**QUICK | {"scheme": "bio"}).fit([(["a"], ["NOUN"])] * 4)
    with pytest.raises(ConfigError, match="no such field"):
        model.read_with(text_field="x")
    with pytest.raises(ConfigError, match="the model tags words"):
        model.segment(["a"])


def test_sentences_without_words_and_very_long_ones(model):
    words = ["Anna", "sees", "Rome", "."] * 1250
    answers = model.predict([[], words, ["Rome"]])
    assert [len(tags) for tags in answers] == [0, 5000, 1]
    assert answers[1][4000:4004] == answers[1][2000:2004]
    assert model.predict([]) == []
    assert model.encode([[], ["Rome"]]).shape == (2, model.network_.output.in_features)


# --- saving -----------------------------------------------------------------------------------------------------------


def test_a_saved_tagger_answers_the_same(model, run, tmp_path):
    other = Tagger.load(model.save(tmp_path / "copy"), device="cpu")
    words = [words for words, _ in sentences(20, 5)]
    assert other.predict_records(words) == model.predict_records(words)
    assert other.inputs_ == model.inputs_ == TaggerInputs.recall(run, model.options)


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path):
    train, valid = sentences(24, 1), sentences(8, 2)
    whole = Tagger(**QUICK | {"epochs": 3}).fit(train, valid=valid, out=tmp_path / "whole")
    Tagger(**QUICK | {"epochs": 2}).fit(train, valid=valid, out=tmp_path / "run")
    again = Tagger(**QUICK | {"epochs": 3}).fit(train, valid=valid, out=tmp_path / "run", resume=True)
    for name, value in whole.network_.state_dict().items():
        torch.testing.assert_close(again.network_.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tags.json", {"tags": ["O"], "scheme": "bioes", "data_scheme": None, "inconsistent": "repair", "bilou": False}),
        ("tags.json", {"tags": ["O", "O"], "scheme": None, "data_scheme": None, "inconsistent": "repair", "bilou": False}),
        ("tags.json", {"tags": ["X-Y"], "scheme": "bioes", "data_scheme": "bio", "inconsistent": "repair", "bilou": False}),
        ("tags.json", {"tags": [3], "scheme": None, "data_scheme": None, "inconsistent": "repair", "bilou": False}),
        ("tagged.json", {"place": -1, "size": None, "coverage": ""}),
        ("tagged.json", []),
        ("characters.json", {"tokens": ["<pad>"]}),
        ("characters.json", None),
    ],
)
def test_damaged_runs_are_refused(model, tmp_path, name, content):
    run = model.save(tmp_path / "run")
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        Tagger.load(run)


def test_recipes_are_possible():
    parser = task_parser("tag", Tagger)
    for name in ("conll2000", "conll2003", "upos", "segmentation"):
        made = make_model(Tagger, parse_options("tag", Tagger, parser, ["--config", name]))
        assert recipe("tag", name) is not None
        assert made.options.output == "crf"
        assert made.training.epochs <= 30
