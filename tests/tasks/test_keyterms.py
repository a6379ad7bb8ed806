"""Key terms end to end: every method learns, answers, is measured, saved and loaded, from Python and from the command."""

import json
import random

import numpy as np
import pytest

from carousel.cli.main import main
from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError
from carousel.tasks import KeyTerms
from carousel.tasks.keyterms import Document

QUICK = {
    "hidden_size": 8,
    "embedding_size": 8,
    "affixes": 2,
    "affix_size": 4,
    "dropout": 0.1,
    "word_dropout": 0.0,
    "epochs": 6,
    "lr": 0.02,
    "batch_size": 4,
    "threads": 1,
    "progress": False,
    "device": "cpu",
}
FILLER = ["we", "show", "that", "results", "are", "better", "with", "much", "care", "here"]
FIRST, SECOND = ("neural", "hidden", "deep"), ("network", "model", "layer")


def documents(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Pairs (text, terms): a term is one of nine pairs of words, or `Kappa` by itself."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        parts = [draw.choice(FILLER) for _ in range(draw.randint(4, 10))]
        terms = [f"{draw.choice(FIRST)} {draw.choice(SECOND)}" for _ in range(draw.randint(0, 2))]
        terms += ["Kappa"] * draw.randint(0, 1)
        for term in terms:
            parts.insert(draw.randint(0, len(parts)), term)
        found.append((" ".join(parts) + " .", terms))
    return found


def write_columns(path, pairs):
    rows = []
    for text, terms in pairs:
        words, inside = text.split(), {tuple(term.split()) for term in terms}
        tags, at = [], 0
        while at < len(words):
            size = next((n for n in (2, 1) if tuple(words[at : at + n]) in inside), 0)
            tags += ["B-KEY", *["I-KEY"] * (size - 1)] if size else ["O"]
            at += size or 1
        rows += [f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)] + ["\n"]
    path.write_text("".join(rows))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keyterms")
    return [write_columns(folder / f"{name}.txt", documents(n, n)) for name, n in (("train", 60), ("valid", 20))]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of tags. Tests read it and never write to it."""
    out = tmp_path_factory.mktemp("runs") / "tags"
    KeyTerms(**QUICK).fit(data[0], data[1], out=out)
    return out


def test_tags_learn_and_are_measured(run, data):
    model = KeyTerms.load(run)
    scores = model.evaluate(data[1])
    assert list(scores) == ["precision", "recall", "f1", "f1_at_5", "f1_at_10", "count"]
    assert scores["f1"] > 0.9
    assert scores["count"] == 20
    assert 0 < model.inputs_.threshold < 1


def test_the_best_taggings_are_bioes(run):
    tags = KeyTerms.load(run).finder().taggings([Document(("we", "show", "deep", "layer", "Kappa")), Document(())])
    assert tags == [["O", "O", "B-KEY", "E-KEY", "S-KEY"], []]


def test_answers_are_ranked_terms_with_places(run):
    model = KeyTerms.load(run)
    text = "We show that hidden model with much care here Hidden model are Kappa here ."
    found = model.predict([text, text.split(), "", "we show"])
    assert set(found[0]) == {"hidden model", "kappa"}
    assert found[0] == found[1]
    assert found[2] == found[3] == ()
    (record,) = model.predict_records([text])
    assert record["tokens"] == text.split()
    assert [one["score"] for one in record["keyterms"]] == sorted((o["score"] for o in record["keyterms"]), reverse=True)
    places = {one["term"]: one["places"] for one in record["keyterms"]}
    assert places["hidden model"] == [[3, 5], [9, 11]]
    assert json.loads(json.dumps(record)) == record
    ranked = model.rank([text])[0]
    best = model.answer_with(top=1).predict([text])[0]
    assert len(ranked) > 2 > len(best) == 1


def test_a_document_alone_is_the_same_as_in_a_batch(run):
    model = KeyTerms.load(run)
    texts = [text for text, _ in documents(9, 5)] + ["", "Kappa"]
    together = model.predict_records(texts)
    for text, record in zip(texts, together, strict=True):
        (alone,) = model.predict_records([text])
        assert [one["term"] for one in alone["keyterms"]] == [one["term"] for one in record["keyterms"]]
        np.testing.assert_allclose(
            [one["score"] for one in alone["keyterms"]], [one["score"] for one in record["keyterms"]], atol=2e-5
        )


def test_a_document_of_5000_words_is_read(run):
    found = KeyTerms.load(run).predict([("we show that " * 1666 + "deep layer .").split()])[0]
    assert "deep layer" in found


def test_scikit_learns_verbs(run):
    texts, terms = zip(*documents(30, 7), strict=True)
    model = KeyTerms(**QUICK | {"epochs": 1}).fit(list(texts), list(terms), valid=(list(texts[:5]), list(terms[:5])))
    assert 0 <= model.score(texts, terms) <= 1
    loaded = KeyTerms.load(run)
    assert loaded.score(texts, terms) > 0.9
    assert loaded.encode(texts).shape == (30, 16)
    assert model.get_params()["epochs"] == 1
    with pytest.raises(ConfigError, match="no table"):
        loaded.predict_proba(texts)
    with pytest.raises(DataError, match="one length"):
        loaded.score(texts, terms[:3])
    with pytest.raises(DataError, match="list of documents"):
        loaded.predict("one text")
    with pytest.raises(NotFittedError):
        KeyTerms().predict(["a text"])


def test_the_many_to_one_way_scores_a_vocabulary(data, tmp_path):
    options = QUICK | {"method": "terms", "epochs": 12, "term_count": 2}
    model = KeyTerms(**options).fit(data[0], data[1], out=tmp_path / "run")
    losses = [row["valid_loss"] for row in model.result_.history]
    assert losses[-1] < 0.8 * losses[0]
    assert model.evaluate(data[1])["f1"] > 0.5
    assert ("kappa",) in model.inputs_.terms
    loaded = KeyTerms.load(tmp_path / "run")
    text = "we show Kappa with much care ."
    chances = loaded.predict_proba([text, ""])
    assert chances.shape == (2, len(loaded.classes_))
    assert chances[0, list(loaded.classes_).index("kappa")] > 0.5
    np.testing.assert_allclose(loaded.predict_proba(["Kappa", text, "deep layer " * 30])[1], chances[0], atol=2e-6)
    assert loaded.predict([text])[0] == ("kappa",)
    assert loaded.encode([text]).shape == (1, 16)
    assert all(one.places for one in loaded.rank([text])[0])
    everything = KeyTerms.load(tmp_path / "run")
    everything.set_params(only_present=False)
    assert len(everything.rank([text])[0]) == len(model.inputs_.terms)


@pytest.mark.parametrize("method", ["tfidf", "textrank"])
def test_methods_that_count_are_fitted_saved_and_loaded(method, data, tmp_path):
    model = KeyTerms(method=method, progress=False).fit(data[0], data[1], out=tmp_path / "run")
    assert model.scores_["f1"] > 0.5
    loaded = KeyTerms.load(tmp_path / "run")
    assert loaded.evaluate(data[1]) == model.evaluate(data[1]) == model.scores_
    assert "deep layer" in loaded.predict(["we show that a deep layer is better"])[0]
    with pytest.raises(ConfigError, match="no vectors"):
        loaded.encode(["a text"])
    with pytest.raises(ConfigError, match="nothing to go on"):
        KeyTerms(method=method).fit(data[0], data[1], out=tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="already there"):
        KeyTerms(method=method).fit(data[0], data[1], out=tmp_path / "run")


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path):
    data = documents(12, 3), documents(6, 4)
    whole = KeyTerms(**QUICK | {"epochs": 2}).fit(*data)
    KeyTerms(**QUICK | {"epochs": 1}).fit(*data, out=tmp_path / "run")
    on = KeyTerms(**QUICK | {"epochs": 2}).fit(*data, out=tmp_path / "run", resume=True)
    assert on.inputs_.threshold == whole.inputs_.threshold
    for name, tensor in whole.network_.state_dict().items():
        assert tensor.equal(on.network_.state_dict()[name]), name


def test_any_cell_and_characters_go(data):
    options = QUICK | {"cell": "indrnn", "characters": "cnn", "epochs": 1, "statistics": False, "num_layers": 2}
    assert KeyTerms(**options).fit(data[0], data[1]).evaluate(data[1])["count"] == 20


def test_word_vectors_are_a_start(data, tmp_path):
    words = [*FIRST, *SECOND, "kappa"]
    text = "".join(f"{word} {at} 1 0.5 -1 0.25\n" for at, word in enumerate(words))
    (tmp_path / "v.txt").write_text(text)
    model = KeyTerms(**QUICK | {"vectors": str(tmp_path / "v.txt"), "freeze_vectors": True, "epochs": 1})
    model.fit(data[0], data[1], out=tmp_path / "run")
    loaded = KeyTerms.load(tmp_path / "run")
    row = loaded.network_.front.words.weight[loaded.inputs_.words.words.encode(["deep"])[0]]
    assert row.tolist() == [2.0, 1.0, 0.5, -1.0, 0.25]


def test_data_that_cannot_be_learned_from_are_refused(tmp_path):
    model = KeyTerms(**QUICK)
    with pytest.raises(DataError, match="not one key term"):
        model.fit([("a text", ["elsewhere"])] * 4)
    with pytest.raises(DataError, match="no vocabulary of terms"):
        KeyTerms(**QUICK | {"method": "terms", "term_count": 9}).fit([("a text", ["text"])] * 4)
    with pytest.raises(DataError, match="too few documents"):
        model.fit([("a text", ["text"])])
    (tmp_path / "a.txt").write_text("a\tO\nb\n")
    with pytest.raises(DataError, match=r"a\.txt:2"):
        model.fit(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("threshold.json", {"threshold": "1"}),
        ("threshold.json", {"threshold": -1.0}),
        ("keyterms.json", {"size": 0}),
        ("keyterms.json", []),
        ("statistics.json", {"documents": 1}),
        ("tags.json", {"data_scheme": "bio", "scheme": "bioes", "inconsistent": "repair", "tags": ["B-X", "O"]}),
    ],
)
def test_a_damaged_run_directory_is_refused(run, tmp_path, name, content):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        KeyTerms.load(tmp_path / "run")


def test_a_run_without_a_threshold_answers_by_the_default(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "threshold.json").unlink()
    model = KeyTerms.load(tmp_path / "run")
    assert model.inputs_.threshold is None
    assert model.predict(["we show Kappa here ."])[0] == ("kappa",)


def test_the_command_line(data, tmp_path, capsys):
    out = str(tmp_path / "run")
    train, valid = map(str, data)
    assert main(["fit", "keyterms", "--train", train, "--valid", valid, "--out", out, "--method", "tfidf"]) == 0
    assert "f1_at_5" in capsys.readouterr().out
    assert f"train: {train}" in (tmp_path / "run" / "config.yaml").read_text()
    assert main(["evaluate", out, "--data", valid, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"precision", "recall", "f1", "f1_at_5", "f1_at_10", "count"}
    raw = tmp_path / "raw.txt"
    raw.write_text("we show a Deep layer and a hidden model .\nhere Kappa\n")
    assert main(["predict", out, str(raw), "--json", "--top", "1"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [len(record["keyterms"]) for record in (first, second)] == [1, 1]
    assert second["keyterms"][0] == {"term": "kappa", "score": 1.0, "places": [[1, 2]]}
    assert main(["predict", out, valid]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert main(["predict", out, str(raw), "--top", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_documents_of_python_go_in_as_they_are(run):
    document = Document(("we", "show", "Kappa", "here", "."), (("kappa",),), ((2, 3),))
    model = KeyTerms.load(run)
    assert model.predict([document])[0] == ("kappa",)
    assert model.evaluate([document])["f1"] == 1.0
    assert model.evaluate([(document, ["other"])])["f1"] == 0.0
