"""Taggers on indicator features: what is written, how it is counted, what is learned, and files."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError, OutputError
from carousel.structured import FeatureCRF, FeatureIndex, StructuredPerceptron, StructuredSVM, TokenFeatures, word_shape
from carousel.structured.lbfgs import minimise
from carousel.structured.sparse import stack

TAGGERS = [FeatureCRF, StructuredPerceptron, StructuredSVM]
FAST = {FeatureCRF: {"max_iter": 40}, StructuredPerceptron: {"epochs": 5}, StructuredSVM: {"epochs": 5}}
CONLL = Path(__file__).parents[3] / "shared" / "data" / "conll2000"

SMALL = TokenFeatures(window=1, affixes=2, pairs=False)


def toy(count, seed):
    """Words `the` and `a` begin a span of up to three words; numbers are tagged by themselves; the rest is outside."""
    rng = np.random.default_rng(seed)
    X, y = [], []
    for _ in range(count):
        words, tags = [], []
        while len(words) < 8:
            if rng.random() < 0.4:
                length = int(rng.integers(1, 4))
                words += [rng.choice(["the", "a"]), *rng.choice(["cat", "dog", "old", "big"], length)]
                tags += ["B-NP", *["I-NP"] * length]
            words.append(rng.choice(["runs", "sees", "on", str(rng.integers(10, 99))]))
            tags.append("B-NUM" if words[-1].isdigit() else "O")
        X.append(words)
        y.append(tags)
    return X, y


@pytest.mark.parametrize("kind", TAGGERS)
def test_minutes_end_learning_after_one_round(kind):
    X, y = toy(30, 0)
    model = kind(SMALL, max_minutes=1e-9).fit(X, y)
    assert len(model.history_) == (2 if kind is FeatureCRF else 1)
    assert model.predict(X[:1])
    with pytest.raises(ConfigError, match="max_minutes must be positive"):
        kind(max_minutes=0)


# --- features ---------------------------------------------------------------------------------------------------------


def test_tokens_are_written_with_their_neighbours():
    rows = TokenFeatures(window=1, affixes=2)([("The", "DT"), ("B-52", "NN")])
    assert rows[1] == [
        "bias", "w[-1]=the", "w[0]=b-52", "w[-1,0]=the|b-52", "c1[-1]=DT", "c1[0]=NN", "c1[-1,0]=DT|NN", "eos",
        "prefix=b", "suffix=2", "prefix=b-", "suffix=52", "shape=X-d", "digit", "hyphen", "capitals",
    ]  # fmt: skip
    assert TokenFeatures()([]) == []
    assert len({len(set(row)) for row in TokenFeatures()(["a"])}) == 1
    with pytest.raises(ConfigError, match="window=-1"):
        TokenFeatures(window=-1)


def test_shapes():
    assert [word_shape(word) for word in ("McDonald", "1,000.5", "北京", "")] == ["XxXx", "d,d.d", "x", ""]


def test_an_index_counts_and_forgets():
    index = FeatureIndex(min_count=2).learn([["a", "b"], ["a", "c"], ["a", "b"]])
    assert index.numbers == {"a": 0, "b": 1}
    rows = index.encode([["c", "b"], [], ["a", "b"]])
    assert (rows.places.tolist(), rows.first.tolist(), rows.size) == ([1, 0, 1], [0, 1, 1, 3], 2)
    hashed = FeatureIndex(hash_bits=8).learn([])
    assert hashed.size == 256
    assert hashed.encode([["a"], ["a"]]).places.unique().numel() == 1
    assert FeatureIndex.from_dict(json.loads(json.dumps(index.to_dict()))) == index
    for wrong in (
        {},
        {**index.to_dict(), "strings": ["a", "a"]},
        {**index.to_dict(), "min_count": 0},
        {**index.to_dict(), "hash_bits": "8"},
    ):
        with pytest.raises(CheckpointError):
            FeatureIndex.from_dict(wrong)
    with pytest.raises(NotFittedError):
        FeatureIndex().encode([["a"]])


def test_products_are_those_of_the_dense_matrix():
    rows = stack([[0, 2], [], [1], [2, 3]], 5)
    dense = torch.zeros(4, 5)
    for n, places in enumerate([[0, 2], [], [1], [2, 3]]):
        dense[n, places] = 1.0
    matrix, other = torch.randn(5, 3), torch.randn(4, 3)
    torch.testing.assert_close(rows @ matrix, dense @ matrix)
    torch.testing.assert_close(rows.turned @ other, dense.mT @ other)
    torch.testing.assert_close(rows.part(1, 4) @ matrix, dense[1:] @ matrix)


# --- the search -------------------------------------------------------------------------------------------------------


def test_the_search_finds_a_minimum():
    """Rosenbrock's valley, and a badly scaled bowl."""

    def valley(x):
        leaf = x.clone().requires_grad_()
        value = (100 * (leaf[1:] - leaf[:-1] ** 2) ** 2 + (1 - leaf[:-1]) ** 2).sum()
        return value.item(), torch.autograd.grad(value, leaf)[0]

    found = minimise(valley, torch.full((6,), -1.0, dtype=torch.float64), max_iter=300, tol=1e-14)
    torch.testing.assert_close(found.x, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-4)
    assert all(a >= b for a, b in zip(found.history, found.history[1:], strict=False))
    scale = torch.logspace(0, 3, 20, dtype=torch.float64)
    bowl = lambda x: (1.0 + float((scale * (x - 1) ** 2).sum()), 2 * scale * (x - 1))  # noqa: E731
    found = minimise(bowl, torch.zeros_like(scale), max_iter=500, tol=1e-14)
    torch.testing.assert_close(found.x, torch.ones_like(scale), rtol=0, atol=1e-4)
    assert found.converged


# --- taggers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TAGGERS)
def test_it_learns_a_toy(kind):
    X, y = toy(60, 0)
    X_test, y_test = toy(40, 1)
    model = kind(SMALL, constraints="bio", **FAST[kind]).fit(X, y)
    assert model.score(X_test, y_test) > 0.98
    assert [len(tags) for tags in model.predict([["the"], [], ["the", "dog"]])] == [1, 0, 2]
    proba = model.predict_proba(X_test[:3])
    assert [p.shape for p in proba] == [(len(x), 4) for x in X_test[:3]]
    for p in proba:
        np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", TAGGERS)
@pytest.mark.skipif(not CONLL.is_dir(), reason="the shared data are not here")
def test_it_learns_chunks(kind):
    def read(name, count):
        with gzip.open(CONLL / name, "rt", encoding="utf-8") as file:
            split = [[line.split() for line in block.splitlines()] for block in file.read().split("\n\n")[:count]]
        return [[row[:2] for row in rows] for rows in split], [[row[2] for row in rows] for rows in split]

    X, y = read("train.txt.gz", 100)
    X_test, y_test = read("test.txt.gz", 100)
    model = kind(TokenFeatures(window=1), FeatureIndex(min_count=2), constraints="bio", **FAST[kind]).fit(X, y)
    assert model.score(X_test, y_test) > 0.83  # measured: 0.87 to 0.90; the most frequent tag alone: 0.27


def test_the_crf_is_at_its_minimum():
    """The gradient of the objective, by torch's own operations, is near zero where the search ended."""
    X, y = toy(10, 0)
    model = FeatureCRF(SMALL, c2=0.5, max_iter=300, tol=1e-9).fit(X, y)
    weights = model.weights_
    from carousel.structured import LinearChain

    leaves = [s.double().requires_grad_() for s in (weights.features, weights.transition, weights.start, weights.end)]
    total = 0.5 * sum(leaf.square().sum() for leaf in leaves)
    for words, tags in zip(X, y, strict=True):
        rows = model.index.encode(SMALL(words))
        dense = torch.zeros(len(words), rows.size, dtype=torch.float64)
        for n in range(len(words)):
            dense[n, rows.part(n, n + 1).places] = 1.0
        numbers = torch.tensor([[model.classes_.index(tag) for tag in tags]])
        total = total - LinearChain((dense @ leaves[0])[None], *leaves[1:]).log_likelihood(numbers).sum()
    assert model.history_[-1] == pytest.approx(total.item(), rel=1e-5)
    total.backward()
    assert max(leaf.grad.abs().max().item() for leaf in leaves) < 0.05
    assert all(a >= b for a, b in zip(model.history_, model.history_[1:], strict=False))


def test_the_svms_gap_closes():
    X, y = toy(30, 0)
    model = StructuredSVM(SMALL, C=0.05, epochs=60, tol=0.02).fit(X, y)
    assert model.history_[-1] < 0.02
    assert model.history_[-1] < 0.1 * model.history_[0]


def test_predictions_keep_to_the_scheme():
    X, y = [["x"] * 3], [["O", "I-A", "I-A"]]
    free = FeatureCRF(SMALL).fit([*X, ["z"]], [*y, ["B-A"]])
    assert free.predict(X)[0][1] == "I-A"
    bound = FeatureCRF(SMALL, constraints="bio").fit([*X, ["z"]], [*y, ["B-A"]])
    tags = bound.predict(X)[0]
    assert all(tag != "I-A" or before != "O" for before, tag in zip(["O", *tags], tags, strict=False))


@pytest.mark.parametrize("kind", TAGGERS)
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    X, y = toy(10, 0)
    model = kind(SMALL, FeatureIndex(hash_bits=10), constraints="bio", **FAST[kind]).fit(X, y)
    model.save(tmp_path / "model")
    again = kind.load(tmp_path / "model")
    assert again.predict(X) == model.predict(X)
    assert again._options() == model._options()
    other = TAGGERS[TAGGERS.index(kind) - 1]
    with pytest.raises(CheckpointError, match="another model"):
        other.load(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "model.json").read_text())
    config["config"]["classes"] = ["O"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        kind.load(tmp_path / "model")


@pytest.mark.parametrize("kind", TAGGERS)
def test_the_same_seed_is_the_same_model(kind):
    X, y = toy(10, 0)
    first, second = (kind(SMALL, seed=3, **FAST[kind]).fit(X, y) for _ in range(2))
    assert torch.equal(first.weights_.features, second.weights_.features)


def test_what_is_not_possible_is_refused():
    with pytest.raises(DataError, match="sentence 1: 1 tokens, 2 tags"):
        FeatureCRF().fit([["a"], ["b"]], [["X"], ["X", "Y"]])
    with pytest.raises(DataError, match="at least one sentence"):
        FeatureCRF().fit([], [])
    with pytest.raises(NotFittedError, match="StructuredSVM"):
        StructuredSVM().predict([["a"]])
    with pytest.raises(ConfigError, match="Did you mean 'bio'"):
        StructuredPerceptron(constraints="bi")
    for make in (lambda: FeatureCRF(c2=-1), lambda: StructuredPerceptron(epochs=0), lambda: StructuredSVM(C=0)):
        with pytest.raises(ConfigError):
            make()


def test_saving_never_deletes_what_is_not_a_model(tmp_path):
    model = StructuredPerceptron(epochs=1).fit([["a", "b"]], [["X", "Y"]])
    folder = tmp_path / "model"
    model.save(folder)
    model.save(folder)  # a model may be replaced
    (folder / "thesis.txt").write_text("four years")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        model.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors", "thesis.txt"]
