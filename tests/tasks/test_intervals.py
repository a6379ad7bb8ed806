"""Intervals, against brute force and SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from carousel.errors import ShapeError
from carousel.tasks.intervals import bootstrap, mcnemar, paired_bootstrap, student, wilson
from evaluations import answered


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_bootstrap_agrees_with_all_resamples(kind):
    found = answered(kind, N=5, V=3, seed=1, skill=0.7)
    every = [found.take(np.array(rows)).scores() for rows in itertools.product(range(5), repeat=5)]
    intervals = bootstrap(found, resamples=20_000)
    assert list(intervals) == [name for name in every[0] if name != "count"]
    for name, interval in intervals.items():
        values = np.array([scores[name] for scores in every])
        assert interval.value == pytest.approx(found.scores()[name], abs=1e-12)
        for end, share in ((interval.low, 0.025), (interval.high, 0.975)):
            # An end is a quantile: so much of the exact distribution may lie on either side, give or take 20,000 draws.
            assert (values < end - 1e-9).mean() <= share + 0.006
            assert (values <= end + 1e-9).mean() >= share - 0.006


def test_bootstrap_of_many_items_draws_groups():
    found = answered("one", N=30_000, skill=1.0)
    interval = bootstrap(found)["accuracy"]
    share = interval.value
    half = 1.96 * np.sqrt(share * (1 - share) / 30_000)
    assert interval.high - share == pytest.approx(half, rel=0.2)
    assert share - interval.low == pytest.approx(half, rel=0.2)


def test_bootstrap_is_the_same_for_the_same_seed():
    found = answered("one")
    assert bootstrap(found) == bootstrap(found)
    assert bootstrap(found) != bootstrap(found, seed=1)


def test_paired_bootstrap_sees_what_single_intervals_hide():
    first = answered("one", N=400, skill=1.0)
    logits = first.logits.copy()
    wrong = np.flatnonzero(~first.right)[:12]
    logits[wrong, first.truth[wrong]] = 50.0  # the same model, but for twelve mistakes that it does not make
    second = answered("one", N=400, skill=1.0, logits=logits)
    one, other = bootstrap(first)["accuracy"], bootstrap(second)["accuracy"]
    assert other.low < one.high
    difference = paired_bootstrap(first, second)["accuracy"]
    assert difference.value == pytest.approx(12 / 400, abs=1e-12)
    assert 0.01 < difference.low < difference.value < difference.high < 0.06
    assert all(value.low == value.high == 0.0 for value in paired_bootstrap(first, first).values())


def test_paired_bootstrap_refuses_other_items():
    with pytest.raises(ShapeError, match="different items"):
        paired_bootstrap(answered("one", seed=0), answered("one", seed=1))
    with pytest.raises(ShapeError, match="different items"):
        mcnemar(answered("one"), answered("several"))


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_is_a_binomial_test(seed):
    first = answered("one", N=80, skill=0.8)
    second = answered("one", N=80, skill=0.8, logits=answered("one", N=80, seed=seed + 5).logits + 2 * first.logits)
    only_first, only_second, p_value = mcnemar(first, second)
    assert only_first == sum(a and not b for a, b in zip(first.right, second.right, strict=True))
    expected = stats.binomtest(only_first, only_first + only_second, 0.5).pvalue
    assert p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_without_disagreement_finds_nothing():
    assert mcnemar(answered("one"), answered("one")) == (0, 0, 1.0)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (812, 1000)])
def test_wilson(right, count):
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    interval = wilson(right, count)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert interval.value == right / count


@pytest.mark.parametrize("count", [2, 3, 5, 10, 101])
def test_student(count):
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    interval = student(values.tolist())
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9)


def test_one_value_has_an_interval_without_ends():
    assert (student([0.5]).low, student([0.5]).value, student([0.5]).high) == (-np.inf, 0.5, np.inf)
