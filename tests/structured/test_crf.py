"""The layer: pytorch-crf's formulas, masks anywhere, constraints, partial labels; and losses on its scores."""

import itertools

import numpy as np
import pytest
import torch

from carousel.errors import ConfigError, DataError, ShapeError
from carousel.structured import (
    CRF,
    Constraints,
    bio_constraints,
    bioes_constraints,
    bmes_constraints,
    iob1_constraints,
    margin_loss,
    perceptron_loss,
)
from structured.brute import Brute

LABELS = ["O", "B-A", "I-A", "B-B", "I-B"]


@pytest.fixture
def case():
    """A layer of double precision, emissions, tags and a mask with holes, the first step too."""
    crf = CRF(5, constraints=bio_constraints(LABELS), dtype=torch.float64)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    mask = torch.tensor([[True, True, True, True], [False, True, False, True], [True, False, False, False]])
    return crf, torch.randn(3, 4, 5, dtype=torch.float64) * 2, torch.tensor([[1, 2, 0, 3], [-9, 3, -9, 4], [0, 7, 7, 7]]), mask


def brutes(crf, emissions, mask):
    chain = crf.chain(emissions, mask)
    scores = [s.detach().numpy() for s in (chain.transition, chain.start, chain.end)]
    return [Brute(u.numpy(), *scores, m.numpy()) for u, m in zip(chain.unary, chain.mask, strict=True)]


def test_every_answer_is_that_of_all_paths(case):
    crf, emissions, tags, mask = case
    rows = brutes(crf, emissions, mask)
    wanted = [dict(zip(r.tags, r.probabilities, strict=True)) for r in rows]
    logs = crf(emissions, tags, mask, reduction="none")
    for b, row in enumerate(rows):
        path = tuple(tags[b][mask[b]].tolist())
        assert logs[b].item() == pytest.approx(np.log(wanted[b][path]), rel=1e-10)
        best = row.tags[int(np.argmax(row.scores))]
        assert tuple(crf.decode(emissions, mask)[b]) == best
        ranked = crf.nbest(emissions, 3, mask)[b]
        assert tuple(ranked[0][0]) == best
        for path, probability in ranked:
            assert probability == pytest.approx(wanted[b][tuple(path)], rel=1e-10)
        np.testing.assert_allclose(crf.marginals(emissions, mask)[b].detach(), row.marginals(), atol=1e-12)
        assert crf.entropy(emissions, mask)[b].item() == pytest.approx(row.entropy(), rel=1e-10)
        drawn = crf.sample(emissions, 50, mask)[:, b][:, mask[b]]
        assert {tuple(path) for path in drawn.tolist()} <= set(row.tags)


def test_time_first_is_the_same(case):
    crf, emissions, tags, mask = case
    other = CRF(5, batch_first=False, constraints=crf.constraints, dtype=torch.float64)
    other.load_state_dict(crf.state_dict())
    turned = emissions.transpose(0, 1).contiguous(), tags.T, mask.T
    assert torch.equal(crf(emissions, tags, mask), other(*turned))
    assert crf.decode(emissions, mask) == other.decode(turned[0], turned[2])
    assert torch.equal(crf.marginals(emissions, mask), other.marginals(turned[0], turned[2]).transpose(0, 1))
    assert other.sample(turned[0], 2, turned[2]).shape == (2, 4, 3)


def test_reductions(case):
    crf, emissions, tags, mask = case
    each = crf(emissions, tags, mask, reduction="none")
    torch.testing.assert_close(crf(emissions, tags, mask), each.sum())
    torch.testing.assert_close(crf(emissions, tags, mask, reduction="mean"), each.mean())
    torch.testing.assert_close(crf(emissions, tags, mask, reduction="token_mean"), each.sum() / mask.sum())
    torch.testing.assert_close(crf.loss(emissions, tags, mask), -each.mean())
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        crf(emissions, tags, mask, reduction="maen")


def test_gradients_by_gradcheck(case):
    crf, emissions, tags, mask = case
    scores = (emissions.requires_grad_(), *crf.parameters())

    def loss(emissions, transitions, start, end):
        given = dict(zip(("transitions", "start_transitions", "end_transitions"), (transitions, start, end), strict=True))
        return torch.func.functional_call(crf, given, (emissions, tags, mask))

    assert torch.autograd.gradcheck(loss, scores)


def test_partial_labels_add_up_what_they_allow(case):
    crf, emissions, _, mask = case
    allowed = torch.rand(3, 4, 5) < 0.6
    allowed[..., 0] = True
    found = crf.partial_log_likelihood(emissions, allowed, mask)
    for b, row in enumerate(brutes(crf, emissions, mask)):
        steps = mask[b].nonzero().view(-1)
        fits = [all(allowed[b, t, k] for t, k in zip(steps, tags, strict=True)) for tags in row.tags]
        assert found[b].item() == pytest.approx(np.log(row.probabilities[fits].sum()), rel=1e-9)
    everything = crf.partial_log_likelihood(emissions, torch.ones_like(allowed), mask)
    torch.testing.assert_close(everything, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(DataError, match="row 0: no path"):
        crf.partial_log_likelihood(emissions, torch.zeros_like(allowed), mask)


def test_tags_against_the_rules_are_named(case):
    crf, emissions, tags, mask = case
    for row, path, words in ((0, [0, 2, 0, 0], "row 0, real step 1: tag 2 may not follow tag 0"),
                             (1, [0, 2, 0, 2], "row 1, real step 0: tag 2 may not come first")):  # fmt: skip
        wrong = tags.clone()
        wrong[row] = torch.tensor(path)
        with pytest.raises(DataError, match=words):
            crf(emissions, wrong, mask)


def test_an_ending_against_the_rules_is_named():
    crf = CRF(2, constraints=Constraints(torch.ones(2, 2, dtype=torch.bool), end=torch.tensor([True, False])))
    with pytest.raises(DataError, match="tag 1 may not come last"):
        crf(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))
    assert crf.decode(torch.tensor([[[0.0, 9.0], [0.0, 9.0]]])) == [[1, 0]]


def test_weights_have_pytorch_crfs_names():
    assert list(CRF(2, constraints=bio_constraints(["O", "B-A"])).state_dict()) == [
        "transitions", "start_transitions", "end_transitions",
    ]  # fmt: skip


def test_it_learns_a_rule():
    """Tags alternate whatever the emissions, which are noise: only transitions can say so."""
    torch.manual_seed(0)
    crf = CRF(2)
    optimiser = torch.optim.Adam(crf.parameters(), lr=0.2)
    tags = torch.arange(12).remainder(2).expand(16, 12)
    for _ in range(60):
        optimiser.zero_grad()
        crf.loss(torch.randn(16, 12, 2), tags).backward()
        optimiser.step()
    assert crf.decode(torch.randn(1, 12, 2) * 0.1) == [tags[0].tolist()]


@pytest.mark.parametrize(
    ("build", "labels", "good", "bad"),
    [
        (bio_constraints, LABELS, ["O", "B-A", "B-A I-A I-A O", "B-A B-B I-B"], ["I-A", "O I-A", "B-A I-B"]),
        (iob1_constraints, LABELS, ["I-A", "O I-A B-A I-A", "I-A I-B"], ["B-A", "O B-A", "I-A B-B"]),
        (
            bioes_constraints,
            ["O", *(f"{p}-{t}" for t in "AB" for p in "BIES")],
            ["O S-A", "B-A E-A", "B-A I-A E-A S-B"],
            ["B-A", "E-A", "O I-A", "B-A O", "B-A E-B", "S-A E-A", "B-A B-A"],
        ),
        (bmes_constraints, list("BMES"), ["S", "B E", "B M M E S"], ["B", "M", "B S", "S E", "E"]),
        (bioes_constraints, ["O", "B-X", "I-X", "L-X", "U-X"], ["U-X", "B-X L-X"], ["B-X U-X", "L-X"]),
    ],
)
def test_constraints_say_which_tags_may_follow(build, labels, good, bad):
    rules = build(labels)
    for text in good:
        assert rules.violations([labels.index(tag) for tag in text.split()]) == [], text
    for text in bad:
        assert rules.violations([labels.index(tag) for tag in text.split()]), text


def test_labels_of_another_scheme_are_refused():
    with pytest.raises(ConfigError, match="unknown BIO label 'E-A'"):
        bio_constraints(["O", "E-A"])
    with pytest.raises(ShapeError, match="constraints of 2 tags"):
        CRF(3, constraints=bio_constraints(["O", "B-A"]))
    with pytest.raises(ConfigError, match="num_tags=0"):
        CRF(0)
    with pytest.raises(ShapeError, match="K=3"):
        CRF(3).decode(torch.zeros(2, 4, 5))


def test_losses_are_those_of_all_paths(case):
    crf, emissions, tags, mask = case
    chain = crf.chain(emissions, mask)
    perceptron, margin = perceptron_loss(chain, tags), margin_loss(chain, tags, cost=1.5)
    for b, row in enumerate(brutes(crf, emissions, mask)):
        right = tuple(tags[b][mask[b]].tolist())
        scores = dict(zip(row.tags, row.scores, strict=True))
        dearer = [s + 1.5 * sum(x != y for x, y in zip(path, right, strict=True)) for path, s in scores.items()]
        assert perceptron[b].item() == pytest.approx(max(scores.values()) - scores[right], abs=1e-10)
        assert margin[b].item() == pytest.approx(max(dearer) - scores[right], abs=1e-10)
    with pytest.raises(ConfigError, match="cost=-1"):
        margin_loss(chain, tags, cost=-1)


@pytest.mark.parametrize("loss", [perceptron_loss, margin_loss])
def test_losses_train_scores(loss):
    """Each step's tag is the sign of its input, or that of the step before where the input is 0."""
    torch.manual_seed(0)
    crf, scores = CRF(2), torch.nn.Linear(1, 2)
    optimiser = torch.optim.Adam([*crf.parameters(), *scores.parameters()], lr=0.1)
    x = torch.randint(-1, 2, (64, 8, 1)).float()
    x[:, 0] = x[:, 0] * 2 - 1
    tags = torch.zeros(64, 8, dtype=torch.int64)
    for t, b in itertools.product(range(8), range(64)):
        tags[b, t] = int(x[b, t] > 0) if x[b, t] != 0 else int(tags[b, t - 1])
    for _ in range(80):
        optimiser.zero_grad()
        loss(crf.chain(scores(x)), tags).mean().backward()
        optimiser.step()
    right = torch.tensor(crf.decode(scores(x))) == tags
    assert right.float().mean() > 0.97
