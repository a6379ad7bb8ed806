"""Scores of answers beside the truth, against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from carousel.errors import DataError, ShapeError
from carousel.tasks.evaluation import Evaluation
from evaluations import answered

SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_one_label_are_those_of_scikit_learn(seed):
    found = answered("one", seed=seed)
    scores = found.scores()
    assert list(scores) == ["accuracy", "macro_f1", "loss", "count"]
    answers, probabilities = found.logits.argmax(axis=1), np.exp(found.logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(found.truth, answers), abs=1e-12)
    # Without `labels`, scikit-learn too takes those that occur as truth or as answer.
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(found.truth, answers, average="macro"), abs=1e-12)
    assert scores["loss"] == pytest.approx(metrics.log_loss(found.truth, probabilities, labels=range(4)), abs=1e-12)
    assert scores["count"] == 60
    assert isinstance(scores["count"], int)
    confusion = found.confusion()
    assert confusion.counts == metrics.confusion_matrix(found.truth, answers, labels=range(4)).tolist()
    assert confusion.scores() == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_several_labels_are_those_of_scikit_learn(seed):
    found = answered("several", seed=seed)
    scores = found.scores()
    assert list(scores) == ["micro_f1", "macro_f1", "exact_match", "loss", "count"]
    answers, probabilities = found.logits > 0, 1 / (1 + np.exp(-found.logits))
    assert scores["micro_f1"] == pytest.approx(metrics.f1_score(found.truth, answers, average="micro"), abs=1e-12)
    macro = metrics.f1_score(found.truth, answers, average="macro", zero_division=np.nan)  # leaves out what never occurs
    assert scores["macro_f1"] == pytest.approx(macro, abs=1e-12)
    assert scores["exact_match"] == pytest.approx(metrics.accuracy_score(found.truth, answers), abs=1e-12)
    losses = [metrics.log_loss(found.truth[:, v], probabilities[:, v], labels=[False, True]) for v in range(4)]
    assert scores["loss"] == pytest.approx(np.mean(losses), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_numbers_are_those_of_scikit_learn(seed):
    found = answered("number", seed=seed)
    scores = found.scores()
    assert list(scores) == ["mae", "rmse", "r2", "count"]
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(found.truth, found.logits), abs=1e-12)
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(found.truth, found.logits), abs=1e-12)
    assert scores["r2"] == pytest.approx(metrics.r2_score(found.truth, found.logits), abs=1e-12)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_the_table_of_labels_is_that_of_scikit_learn(kind):
    found = answered(kind)
    columns = metrics.precision_recall_fscore_support(found.truth, found.answers, labels=range(4), zero_division=np.nan)
    for row, precision, recall, f1, support in zip(found.table(), *columns, strict=True):
        expected = [None if np.isnan(value) else pytest.approx(value, abs=1e-12) for value in (precision, recall, f1)]
        assert [row["precision"], row["recall"], row["f1"]] == expected
        assert row["support"] == support
    assert [row["label"] for row in found.table()] == list(found.labels)
    assert found.table()[-1]["f1"] is None


def test_the_table_of_targets_scores_each_alone():
    found = answered("number")
    for column, row in enumerate(found.table()):
        truth, answers = found.truth[:, column], found.logits[:, column]
        assert row["r2"] == pytest.approx(metrics.r2_score(truth, answers), abs=1e-12)
        assert row["mae"] == pytest.approx(metrics.mean_absolute_error(truth, answers), abs=1e-12)
        assert row["mean"] == pytest.approx(truth.mean(), abs=1e-12)


@pytest.mark.parametrize("answer", [2.0, 3.0])
def test_a_constant_truth_is_explained_fully_or_not_at_all(answer):
    truth = np.full((5, 1), 2.0)
    found = answered("number", N=5, V=1, truth=truth, logits=np.full((5, 1), answer))
    assert found.scores()["r2"] == metrics.r2_score(truth, found.logits)


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_sums_over_parts_give_the_scores_of_the_whole(kind):
    found = answered(kind, N=50)
    rows = np.random.default_rng(3).permutation(50)
    parts = [found.statistics(rows[:20]).sum(axis=0), found.statistics(rows[20:]).sum(axis=0)]
    scores = found.scores()
    del scores["count"]
    assert {name: float(value) for name, value in found.scores_of(sum(parts)).items()} == pytest.approx(scores, rel=1e-10)
    some = found.take(rows[:20])
    assert some.texts == tuple(found.texts[row] for row in rows[:20])
    expected = {name: float(value) for name, value in found.scores_of(parts[0]).items()} | {"count": 20}
    # r2 takes another constant off the truth: equal but for rounding
    assert some.scores() == pytest.approx(expected, rel=1e-9)


def test_scores_do_not_depend_on_how_many_items_are_looked_at_at_once(monkeypatch):
    found = answered("one", N=100)
    scores = found.scores()
    monkeypatch.setattr("carousel.tasks.evaluation.CHUNK", 7)
    assert found.scores() == pytest.approx(scores, rel=1e-12)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_sure_answers_lose_a_finite_amount(kind):
    truth = np.array([0, 1]) if kind == "one" else np.array([[True, False], [False, True]])
    found = answered(kind, N=2, V=2, truth=truth, logits=np.array([[2000.0, -2000.0], [2000.0, -2000.0]]))
    assert found.losses.tolist() == [0.0, 4000.0 if kind == "one" else 2000.0]


def test_no_label_at_all_scores_nothing():
    nothing = np.zeros((3, 2), dtype=bool)
    scores = answered("several", N=3, V=2, truth=nothing, logits=np.full((3, 2), -5.0)).scores()
    assert (scores["micro_f1"], scores["macro_f1"], scores["exact_match"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"truth": np.zeros((60, 4), dtype=int)}, "truth"),
        ({"logits": np.zeros((60, 3))}, "logits"),
        ({"lengths": np.zeros(59, dtype=int)}, "lengths"),
        ({"texts": ("a",)}, "texts"),
        ({"attention": []}, "attention"),
        ({"places": ("a", "b")}, "places"),
    ],
)
def test_arguments_that_disagree_are_refused(changes, name):
    with pytest.raises(ShapeError, match=name):
        answered("one", **changes)


def test_nothing_to_evaluate_and_wrong_questions_are_refused():
    with pytest.raises(DataError, match="nothing to evaluate"):
        Evaluation("one", ("a",), np.zeros(0, dtype=int), np.zeros((0, 1)), np.zeros(0, dtype=int), ())
    for question in ("probabilities", "right"):
        with pytest.raises(ShapeError, match="numbers have no labels"):
            getattr(answered("number"), question)
    with pytest.raises(ShapeError, match="no confusion"):
        answered("several").confusion()
