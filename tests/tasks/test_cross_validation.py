"""Cross-validation: fair folds, every record measured once by a model that has not seen it, nothing lost on Ctrl-C."""

import json
import math
import random
from collections import Counter

import numpy as np
import pytest

from carousel.errors import CheckpointError, ConfigError, DataError
from carousel.tasks import Classifier, cross_validate
from carousel.tasks.cross_validation import CrossValidation, Fold, split_folds


@pytest.fixture
def tiny(quick):
    return Classifier(**quick | {"epochs": 2, "hidden_size": 4, "embedding_size": 4})


@pytest.fixture
def pairs(train_pairs):
    return train_pairs[:60]


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_every_label_is_shared_out_evenly(seed, folds):
    draw = random.Random(seed)
    labels = [(draw.choices("abcd", weights=[50, 20, 5, 1])[0],) for _ in range(203)]
    counts = Counter(labels)
    fold_of = split_folds(labels, folds, seed=seed)
    kept = {label for label, count in counts.items() if count == 1}
    assert [fold == 0 for fold in fold_of] == [label in kept for label in labels]
    sizes = Counter(fold for fold in fold_of if fold)
    assert set(sizes) == set(range(1, folds + 1))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in set(labels) - kept:
        share = [sum(1 for at, fold in enumerate(fold_of) if labels[at] == label and fold == number) for number in sizes]
        assert max(share) - min(share) <= 1
    assert fold_of == split_folds(labels, folds, seed=seed)
    assert fold_of != split_folds(labels, folds, seed=seed + 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_label_is_unknown_where_it_is_measured(seed):
    draw = random.Random(seed)
    labels = [tuple(sorted(draw.sample("abcdefgh", draw.randint(0, 3)))) for _ in range(30)]
    fold_of = split_folds(labels, 3, seed=seed)
    for number in (1, 2, 3):
        known = {label for at, fold in enumerate(fold_of) if fold != number for label in labels[at]}
        measured = {label for at, fold in enumerate(fold_of) if fold == number for label in labels[at]}
        assert measured <= known
    assert fold_of.count(0) <= 8


def test_numbers_are_shared_out_at_random():
    fold_of = split_folds([()] * 100, 4, seed=0)
    assert Counter(fold_of) == {1: 25, 2: 25, 3: 25, 4: 25}
    assert fold_of != sorted(fold_of)


def test_too_few_records_are_refused():
    with pytest.raises(DataError, match="too few records"):
        split_folds([("a",), ("a",), ("b",), ("b",)], 5, seed=0)


# --- models -----------------------------------------------------------------------------------------------------------


def test_each_record_is_measured_once_by_a_model_that_has_not_seen_it(tiny, pairs, monkeypatch):
    numbered = [(f"{text} n{number}", label) for number, (text, label) in enumerate(pairs)]
    learnt, measured = [], []
    fit, judge = Classifier.fit, Classifier.judge
    monkeypatch.setattr(
        Classifier, "fit", lambda self, X, **more: (learnt.append({r.text for r in X}), fit(self, X, **more))[1]
    )
    monkeypatch.setattr(Classifier, "judge", lambda self, data: (measured.append({r.text for r in data}), judge(self, data))[1])
    found = cross_validate(tiny, numbered, folds=3)
    everything = {text for text, _ in numbered}
    assert sum(map(len, measured)) == 60
    assert set().union(*measured) == everything
    for seen, tested in zip(learnt, measured, strict=True):
        assert not seen & tested
        assert seen | tested == everything
    assert [fold.count for fold in found.folds] == [20, 20, 20]
    assert not hasattr(tiny, "network_")
    for name in ("accuracy", "macro_f1", "loss"):
        assert found.scores[name].value == pytest.approx(np.mean([fold.scores[name] for fold in found.folds]))
    assert "count" not in found.scores


def test_a_good_kind_of_model_is_found_good(quick, train_pairs):
    found = cross_validate(Classifier(**quick | {"epochs": 6}), train_pairs, folds=2)
    assert found.scores["accuracy"].value > 0.9


def test_files_lists_and_scikit_learns_arguments_give_the_same(tiny, pairs, tmp_path):
    path = tmp_path / "all.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in pairs))
    texts, labels = zip(*pairs, strict=True)
    options = tiny.get_params()
    found = [
        cross_validate(Classifier(**options), *data, folds=2).scores
        for data in ((path,), (pairs,), (list(texts), list(labels)))
    ]
    assert found[0] == found[1] == found[2]


def test_directory_keeps_everything_and_a_second_time_is_refused(tiny, pairs, tmp_path):
    out = tmp_path / "cv"
    found = cross_validate(tiny, pairs, folds=2, out=out)
    saved = json.loads((out / "crossvalidation.json").read_text())
    assert [fold["scores"] for fold in saved["results"]] == [dict(fold.scores) for fold in found.folds]
    assert saved["scores"] == {name: interval.to_dict() for name, interval in found.scores.items()}
    assert (saved["folds"], saved["seed"], saved["count"], saved["task"]) == (2, 0, 60, "classify")
    model = Classifier.load(out / "fold-2")
    assert len(model.predict(["a moving film"])) == 1
    with pytest.raises(ConfigError, match="already there"):
        cross_validate(tiny, pairs, folds=2, out=out)
    replaced = cross_validate(tiny, pairs, folds=2, seed=1, out=out, overwrite=True)
    assert replaced.folds != found.folds
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="never overwritten"):
        cross_validate(tiny, pairs, out=other, overwrite=True)
    assert (other / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("when", ["before any epoch", "after an epoch"])
def test_interrupted_and_resumed_gives_the_same_scores(tiny, pairs, tmp_path, monkeypatch, when):
    whole = cross_validate(tiny, pairs, folds=3, out=tmp_path / "whole")
    fit, calls = Classifier.fit, []

    def interrupted(self, X, **more):
        calls.append(more)
        if len(calls) == 2:
            if when == "after an epoch":
                short = Classifier(**self.get_params() | {"epochs": 1})
                fit(short, X, **more)
            raise KeyboardInterrupt
        return fit(self, X, **more)

    monkeypatch.setattr(Classifier, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(tiny, pairs, folds=3, out=tmp_path / "cut")
    saved = json.loads((tmp_path / "cut" / "crossvalidation.json").read_text())
    assert [fold["number"] for fold in saved["results"]] == [1]
    found = cross_validate(tiny, pairs, folds=3, out=tmp_path / "cut", resume=True)
    assert [call["resume"] for call in calls] == [False, False, when == "after an epoch", False]
    assert [fold.scores for fold in found.folds] == [fold.scores for fold in whole.folds]
    again = cross_validate(tiny, pairs, folds=3, out=tmp_path / "cut", resume=True)
    assert len(calls) == 4
    assert again == found


def test_going_on_with_something_else_is_refused(tiny, pairs, tmp_path):
    out = tmp_path / "cv"
    cross_validate(tiny, pairs, folds=2, out=out)
    with pytest.raises(ConfigError, match="folds cannot change"):
        cross_validate(tiny, pairs, folds=3, out=out, resume=True)
    with pytest.raises(ConfigError, match="data have changed"):
        cross_validate(
            tiny, [(pairs[0][0], "good" if pairs[0][1] == "bad" else "bad"), *pairs[1:]], folds=2, out=out, resume=True
        )
    with pytest.raises(ConfigError, match="option hidden_size"):
        cross_validate(Classifier(**tiny.get_params() | {"hidden_size": 5}), pairs, folds=2, out=out, resume=True)
    with pytest.raises(ConfigError, match="no cross-validation to go on with"):
        cross_validate(tiny, pairs, folds=2, out=tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        cross_validate(tiny, pairs, folds=2, out=out, resume=True, overwrite=True)


@pytest.mark.parametrize("edit", [{"results": 3}, {"results": [{}]}, {"settings": None}, {"results": [{"number": 2}] * 2}])
def test_a_damaged_result_is_one_error(tiny, pairs, tmp_path, edit):
    out = tmp_path / "cv"
    cross_validate(tiny, pairs, folds=2, out=out)
    saved = json.loads((out / "crossvalidation.json").read_text())
    (out / "crossvalidation.json").write_text(json.dumps(saved | edit))
    with pytest.raises(CheckpointError, match="damaged"):
        cross_validate(tiny, pairs, folds=2, out=out, resume=True)


def test_a_label_with_one_record_is_always_trained_on(tiny, pairs):
    found = cross_validate(tiny, [*pairs, ("once upon a time", "tale")], folds=2)
    assert found.always_in_training == 1
    assert sum(fold.count for fold in found.folds) == 60


def test_wrong_arguments_are_refused(tiny, pairs):
    with pytest.raises(ConfigError, match="at least 2 folds"):
        cross_validate(tiny, pairs, folds=1)
    with pytest.raises(ConfigError, match="no data to validate on"):
        cross_validate(tiny, pairs, pairs)


def test_a_single_fold_so_far_has_an_interval_without_ends():
    found = CrossValidation((Fold(1, 5, 1, 1, 0.5, {"accuracy": 0.5, "count": 5}),))
    assert math.isinf(found.scores["accuracy"].high)
    assert found.to_dict()["scores"] == {"accuracy": {"value": 0.5, "low": None, "high": None}}


def test_series_and_numbers_can_be_cross_validated(quick):
    random_numbers = np.random.default_rng(0)
    series = [random_numbers.normal(size=(random_numbers.integers(3, 8), 2)) for _ in range(40)]
    data = [(values, float(values.mean())) for values in series]
    found = cross_validate(Classifier(**quick | {"epochs": 1}), data, folds=2)
    assert list(found.scores) == ["mae", "rmse", "r2"]
    assert sum(fold.count for fold in found.folds) == 40
