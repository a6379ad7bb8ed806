"""Segments: every answer equals that of all ways to cut and tag a row."""

import itertools

import numpy as np
import pytest
import torch

from carousel.errors import ConfigError, DataError, ShapeError
from carousel.structured import SemiMarkovCRF


def cuts(T, L):
    """Every way to cut T steps into segments of at most L."""
    if T == 0:
        yield ()
    for n in range(1, min(T, L) + 1):
        for rest in cuts(T - n, L):
            yield (n, *rest)


@torch.no_grad()
def segmentations(crf, unary):
    """Every segmentation of one row with its score."""
    T, K = unary.shape
    found = {}
    for lengths in cuts(T, crf.max_length):
        for tags in itertools.product(range(K), repeat=len(lengths)):
            score, at, path = 0.0, 0, []
            for n, k in zip(lengths, tags, strict=True):
                score += unary[at : at + n, k].sum() + crf.length_scores[n - 1, k]
                path.append((at, at + n, k))
                at += n
            score += sum(crf.transitions[i, j] for i, j in itertools.pairwise(tags))
            if tags:
                score += crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
            found[tuple(path)] = float(score)
    return found


@pytest.fixture
def case():
    crf = SemiMarkovCRF(3, max_length=3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    mask = torch.tensor([[True] * 4, [False, True, True, False], [False] * 4, [True, False, True, True]])
    return crf, torch.randn(4, 4, 3, dtype=torch.float64), mask


def test_every_answer_is_that_of_all_segmentations(case):
    crf, emissions, mask = case
    logs, best, marginals = crf.log_partition(emissions, mask), crf.decode(emissions, mask), crf.marginals(emissions, mask)
    with torch.no_grad():
        for b in range(4):
            found = segmentations(crf, emissions[b][mask[b]])
            total = np.logaddexp.reduce(list(found.values()))
            assert logs[b].item() == pytest.approx(total, abs=1e-10)
            assert tuple(best[b]) == max(found, key=found.get)
            wanted = np.zeros((4, 3, 3))
            for path, score in found.items():
                for begin, end, tag in path:
                    wanted[end - 1, end - begin - 1, tag] += np.exp(score - total)
            np.testing.assert_allclose(marginals[b], wanted, atol=1e-12)
    right = [list(path) for path in best]
    likelihoods = crf(emissions, right, mask)
    for b in range(4):
        found = segmentations(crf, emissions[b][mask[b]])
        assert likelihoods[b].item() == pytest.approx(found[tuple(right[b])] - logs[b].item(), abs=1e-10)


@pytest.mark.parametrize("k", [1, 2, 7, 500])
def test_the_k_best_are_those_of_all_segmentations(case, k):
    crf, emissions, mask = case
    ranked = crf.nbest(emissions, k, mask)
    with torch.no_grad():
        for b in range(4):
            found = segmentations(crf, emissions[b][mask[b]])
            total = np.logaddexp.reduce(list(found.values()))
            wanted = sorted(found.values(), reverse=True)[:k]
            given = [tuple(path) for path, _ in ranked[b]]
            assert len(set(given)) == len(given)
            # Some are equally good: they may come in any order.
            np.testing.assert_allclose([found[path] for path in given], wanted, rtol=1e-9)
            np.testing.assert_allclose([p for _, p in ranked[b]], np.exp(np.array(wanted) - total), rtol=1e-9)
    assert [row[0][0] for row in ranked] == crf.decode(emissions, mask)


def test_samples_are_as_frequent_as_probable(case):
    crf, emissions, mask = case
    N = 4000
    drawn = crf.sample(emissions, N, mask, torch.Generator().manual_seed(1))
    assert [len(row) for row in drawn] == [N] * 4
    with torch.no_grad():
        for b in range(4):
            found = segmentations(crf, emissions[b][mask[b]])
            total = np.logaddexp.reduce(list(found.values()))
            counts = dict.fromkeys(found, 0)
            for path in drawn[b]:
                counts[tuple(path)] += 1
            for path, score in found.items():
                p = np.exp(score - total)
                assert abs(counts[path] - N * p) < 5 * np.sqrt(N * p * (1 - p)) + 1


def test_how_many_must_be_positive(case):
    crf, emissions, _ = case
    with pytest.raises(ConfigError, match="k must be positive"):
        crf.nbest(emissions, 0)
    with pytest.raises(ConfigError, match="count must be positive"):
        crf.sample(emissions, 0)
    assert crf.nbest(emissions[:, :0], 3) == [[([], 1.0)]] * 4
    assert crf.sample(emissions[:, :0], 2) == [[[], []]] * 4


def test_gradients_by_gradcheck(case):
    crf, emissions, mask = case
    segments = crf.decode(emissions, mask)

    def loss(emissions, transitions, lengths, start, end):
        names = ("transitions", "length_scores", "start_transitions", "end_transitions")
        given = dict(zip(names, (transitions, lengths, start, end), strict=True))
        return torch.func.functional_call(crf, given, (emissions, segments, mask))

    assert torch.autograd.gradcheck(loss, (emissions.requires_grad_(), *crf.parameters()))


def test_segments_of_one_step_are_a_chain(case):
    _, emissions, mask = case
    from carousel.structured import CRF

    semi, crf = SemiMarkovCRF(3, 1, dtype=torch.float64), CRF(3, dtype=torch.float64)
    with torch.no_grad():
        semi.length_scores.zero_()
    crf.load_state_dict({name: value for name, value in semi.state_dict().items() if name != "length_scores"})
    torch.testing.assert_close(semi.log_partition(emissions, mask), crf.chain(emissions, mask).log_partition())
    tags = [[tag for _, _, tag in path] for path in semi.decode(emissions, mask)]
    assert tags == crf.decode(emissions, mask)


def test_time_first_is_the_same(case):
    crf, emissions, mask = case
    other = SemiMarkovCRF(3, 3, batch_first=False, dtype=torch.float64)
    other.load_state_dict(crf.state_dict())
    turned = emissions.transpose(0, 1), mask.T
    assert torch.equal(other.log_partition(*turned), crf.log_partition(emissions, mask))
    assert other.decode(*turned) == crf.decode(emissions, mask)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([(0, 2, 0), (3, 4, 0)], "begin 2"),
        ([(0, 4, 0)], "1 to 3 steps"),
        ([(0, 2, 0), (2, 4, 3)], "tag 0 to 2"),
        ([(0, 2, 0)], "4 real steps"),
    ],
)
def test_segments_that_do_not_fit_are_named(segments, words):
    with pytest.raises(DataError, match=words):
        SemiMarkovCRF(3, 3)(torch.zeros(1, 4, 3), [segments])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="max_length=0"):
        SemiMarkovCRF(2, 0)
    with pytest.raises(ShapeError, match="K=2"):
        SemiMarkovCRF(2, 2).decode(torch.zeros(1, 3, 4))
    with pytest.raises(ShapeError, match="mask"):
        SemiMarkovCRF(2, 2).decode(torch.zeros(1, 3, 2), torch.ones(3, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="2 rows"):
        SemiMarkovCRF(2, 2)(torch.zeros(1, 3, 2), [[], []])
