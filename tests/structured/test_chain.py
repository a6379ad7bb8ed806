"""Linear chains: every answer equals that of all paths one by one, compiled and in torch operations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.errors import ConfigError, DTypeError, ShapeError
from carousel.structured import LinearChain
from carousel.structured import compiled as loops
from carousel.structured.steps import pack
from structured.brute import Brute

TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 2e-5}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


@st.composite
def cases(draw):
    B, T, K = draw(st.integers(0, 3)), draw(st.integers(0, 4)), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))

    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype) * draw(st.sampled_from([0.1, 2.0, 10.0]))

    unary, transition = numbers(B, T, K), numbers(K, K)
    mask = draw(st.sampled_from(["none", "holes", "lengths"]))
    mask = {
        "none": None,
        "holes": torch.rand(B, T, generator=generator) < 0.6,
        "lengths": torch.arange(T) < torch.randint(0, T + 1, (B, 1), generator=generator),
    }[mask]
    if draw(st.booleans()):
        transition[torch.rand(K, K, generator=generator) < 0.4] = -torch.inf
    if draw(st.booleans()):
        unary[torch.rand(B, T, K, generator=generator) < 0.2] = -torch.inf
    if draw(st.booleans()):  # time-major in memory
        unary = unary.transpose(0, 1).contiguous().transpose(0, 1)
    edges = [numbers(K) if draw(st.booleans()) else None for _ in range(2)]
    return LinearChain(unary, transition, *edges, mask)


def brutes(chain):
    B, T, K = chain.unary.shape
    zero = torch.zeros(K)
    edges = [(zero if s is None else s).double().numpy() for s in (chain.start, chain.end)]
    mask = np.ones((B, T), bool) if chain.mask is None else chain.mask.numpy()
    return [Brute(chain.unary[b].double().numpy(), chain.transition.double().numpy(), *edges, mask[b]) for b in range(B)]


def expect(got, want, chain):
    want = torch.tensor(np.array(want), dtype=got.dtype).reshape(got.shape)
    torch.testing.assert_close(got, want, **TOLERANCE[chain.unary.dtype])


ENGINES = ["auto", "eager"]


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=60)
@given(chain=cases())
def test_every_sum_equals_that_of_all_paths(chain, engine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_ENGINE", engine)
        rows = brutes(chain)
        expect(chain.log_partition(), [r.log_partition for r in rows], chain)
        expect(chain.marginals(), [r.marginals() for r in rows], chain)
        expect(chain.pair_marginals(), [r.pairs() for r in rows], chain)
        expect(chain.entropy(), [r.entropy() for r in rows], chain)
        K = chain.unary.shape[-1]
        values = [torch.randn(shape, dtype=chain.unary.dtype) for shape in (chain.unary.shape, (K, K), (K,), (K,))]
        arrays = [v.double().numpy() for v in values]
        wanted = [r.expectation(arrays[0][b], *arrays[1:]) for b, r in enumerate(rows)]
        expect(chain.expectation(*values), wanted, chain)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=60)
@given(chain=cases())
def test_gradients_are_expectations(chain, engine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_ENGINE", engine)
        rows = brutes(chain)
        given_ = (chain.unary, chain.transition, chain.start, chain.end)
        leaves = [None if s is None else s.clone().requires_grad_() for s in given_]
        gain = torch.randn(len(rows), dtype=chain.unary.dtype)
        (LinearChain(*leaves, chain.mask).log_partition().nan_to_num(neginf=0.0) * gain).sum().backward()
        g = gain.double().numpy()
        if len(rows):
            expect(leaves[0].grad, np.stack([x * r.marginals() for x, r in zip(g, rows, strict=True)]), chain)
            expect(leaves[1].grad, sum(x * r.pairs().sum(0) for x, r in zip(g, rows, strict=True)), chain)
            for index in (0, 1):
                if leaves[2 + index] is not None:
                    expect(leaves[2 + index].grad, sum(x * r.edges()[index] for x, r in zip(g, rows, strict=True)), chain)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=60)
@given(chain=cases(), k=st.integers(1, 5))
def test_best_paths_are_those_of_all_paths(chain, k, engine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_ENGINE", engine)
        best, score = chain.best()
        many, scores = chain.nbest(k)
        for b, row in enumerate(brutes(chain)):
            order = np.argsort(-row.scores, kind="stable")
            wanted = np.full(k, -np.inf)
            wanted[: min(k, len(order))] = row.scores[order[:k]]
            expect(scores[b], wanted, chain)
            expect(score[b], wanted[0], chain)
            if not len(order):
                assert (best[b] == -1).all()
                continue
            known = {tuple(row.full(tags)): s for tags, s in zip(row.tags, row.scores, strict=True)}
            expect(torch.tensor(known[tuple(best[b].tolist())], dtype=chain.unary.dtype), wanted[0], chain)
            there = [tuple(path.tolist()) for path in many[b][: len(order)]]
            assert len(set(there)) == len(there)
            expect(torch.tensor([known[path] for path in there], dtype=chain.unary.dtype), wanted[: len(there)], chain)
            assert (many[b][len(order) :] == -1).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_come_as_often_as_probable(engine, monkeypatch):
    monkeypatch.setenv("CAROUSEL_ENGINE", engine)
    torch.manual_seed(3)
    transition = torch.randn(3, 3)
    transition[0, 1] = -torch.inf
    mask = torch.tensor([[True, True, True, True], [False, True, False, True], [False] * 4])
    chain = LinearChain(torch.randn(3, 4, 3), transition, torch.randn(3), torch.randn(3), mask)
    count = 20_000
    drawn = chain.sample(count, torch.Generator().manual_seed(1))
    assert (drawn[:, ~mask] == -1).all()
    for b, row in enumerate(brutes(chain)):
        known = {tuple(row.full(tags)): p for tags, p in zip(row.tags, row.probabilities, strict=True)}
        found, times = np.unique(drawn[:, b].numpy(), axis=0, return_counts=True)
        assert {tuple(path) for path in found} <= set(known)
        often = {tuple(path): n / count for path, n in zip(found, times, strict=True)}
        for path, p in known.items():  # six standard deviations
            assert abs(often.get(path, 0.0) - p) < 6 * np.sqrt(p * (1 - p) / count) + 1e-9


@settings(max_examples=40)
@given(chain=cases())
def test_likelihoods_are_those_of_the_path(chain):
    tags = chain.sample(1)[0]
    logs = chain.log_likelihood(tags.clamp(min=0))
    for b, row in enumerate(brutes(chain)):
        if len(row.tags):
            at = row.tags.index(tuple(tags[b][tags[b] >= 0].tolist()))
            expect(logs[b], row.scores[at] - row.log_partition, chain)
            expect(chain.score(tags.clamp(min=0))[b], row.scores[at], chain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3.0, 1e2, 1e4])
@pytest.mark.parametrize("forbidden", [False, True])
def test_scores_of_any_size_lose_nothing(dtype, size, forbidden):
    """Against logarithms in float64: sums and gradients, where numbers leave the range of the type and where not."""
    torch.manual_seed(0)
    B, T, K = 6, 12, 5
    unary, transition = (torch.randn(*shape, dtype=dtype) * size for shape in ((B, T, K), (K, K)))
    if forbidden:
        transition[torch.rand(K, K) < 0.4] = -torch.inf
    mask = torch.arange(T) < torch.tensor([[12], [1], [0], [7], [12], [3]])
    gain = torch.randn(B, dtype=dtype)

    def through(dtype):
        leaves = [s.to(dtype).requires_grad_() for s in (unary, transition)]
        total = LinearChain(*leaves, mask=mask).log_partition()
        (total.nan_to_num(neginf=0.0) * gain.to(dtype)).sum().backward()
        return [total.detach(), *(leaf.grad for leaf in leaves)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_ENGINE", "eager")
        wanted = through(torch.float64)
    for got, want in zip(through(dtype), wanted, strict=True):
        bound = 3e-6 if dtype is torch.float32 else 1e-12
        torch.testing.assert_close(got.double(), want, rtol=bound * 4, atol=bound * 4)


def test_what_a_constraint_hides_is_found_with_logarithms():
    """The only way to a score of 1e4 leads through a state that is e^-200 as likely as its neighbour: no range holds both."""
    unary = torch.zeros(1, 3, 3)
    unary[0, 0] = torch.tensor([0.0, -200.0, -400.0])
    unary[0, 2, 2] = 1e4
    transition = torch.zeros(3, 3)
    transition[0, 1] = transition[0, 2] = transition[1, 0] = transition[2, 0] = -torch.inf
    chain = LinearChain(unary, transition)
    assert chain.log_partition().item() == pytest.approx(1e4 - 200 + np.log(2), rel=1e-6)
    torch.testing.assert_close(chain.marginals()[0, 0], torch.tensor([0.0, 1.0, 0.0]))
    made = loops.sums(loops.Scores(unary, transition, None, None, pack(None, 1, 3)))
    assert made.again is not None


def test_usual_scores_need_no_logarithms():
    torch.manual_seed(0)
    transition = torch.randn(20, 20)
    transition[torch.rand(20, 20) < 0.3] = -torch.inf
    scores = loops.Scores(torch.randn(8, 30, 20) * 3, transition, None, None, pack(None, 8, 30))
    made = loops.sums(scores)
    assert made.watched
    assert made.again is None
    loops.expected(scores, made, torch.ones(8))
    assert made.again is None


@pytest.mark.parametrize("K", [1, 2, 15, 16, 17, 33, 64, 65, 100, 130])
def test_every_width_is_that_of_logarithms(K):
    """Blocks of columns of every width, and both types; a gradient that is kept is computed twice alike."""
    torch.manual_seed(K)
    for dtype in (torch.float32, torch.float64):
        scores = [torch.randn(*shape, dtype=dtype).requires_grad_() for shape in ((3, 4, K), (K, K), (K,), (K,))]
        mask = torch.tensor([[True] * 4, [False, True, True, False], [True, False, False, True]])
        total = LinearChain(*scores, mask).log_partition()
        first = torch.autograd.grad(total.sum(), scores, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(total.sum(), scores), strict=True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CAROUSEL_ENGINE", "eager")
            wide = [s.detach().double().requires_grad_() for s in scores]
            wanted = LinearChain(*wide, mask).log_partition()
            best = LinearChain(*wide, mask).best()
        torch.testing.assert_close(total.double(), wanted, **TOLERANCE[dtype])
        for got, want in zip(first, torch.autograd.grad(wanted.sum(), wide), strict=True):
            torch.testing.assert_close(got.double(), want, **TOLERANCE[dtype])
        with torch.no_grad():
            found = LinearChain(*scores, mask).best()
        assert torch.equal(found[0], best[0])


@pytest.mark.parametrize("forbidden", [False, True])
def test_gradcheck(forbidden):
    torch.manual_seed(1)
    mask = torch.tensor([[True, True, False, True], [False, True, True, True], [False] * 4])
    allowed = torch.tensor([[True, True, True], [True, False, True], [False, True, True]])
    unary, transition, start, end = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4, 3), (3, 3), (3,), (3,))
    )
    tags = torch.tensor([[0, 2, 9, 1], [9, 0, 1, 2], [9, 9, 9, 9]])

    def chain(*scores):
        unary, transition, start, end = scores
        if forbidden:
            transition = transition.masked_fill(~allowed, -torch.inf)
        return LinearChain(unary, transition, start, end, mask)

    scores = (unary, transition, start, end)
    for function in (
        lambda *s: chain(*s).log_partition(),
        lambda *s: chain(*s).log_likelihood(tags),
        lambda *s: chain(*s).marginals(),
        lambda *s: chain(*s).entropy(),
        lambda *s: chain(*s).pair_marginals(),
        lambda *s: chain(*s).expectation(s[0] ** 2, s[1].sin()),
    ):
        assert torch.autograd.gradcheck(function, scores)
    assert torch.autograd.gradgradcheck(lambda *s: chain(*s).log_likelihood(tags), scores)


def test_padding_is_never_read():
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.tensor([[6], [2], [0]])
    scores = [torch.randn(*shape) for shape in ((3, 6, 4), (4, 4), (4,), (4,))]
    spoiled = scores[0].masked_fill(~mask[..., None], torch.nan)
    clean, dirty = (LinearChain(u, *scores[1:], mask) for u in (scores[0], spoiled))
    for name in ("log_partition", "marginals", "entropy", "pair_marginals"):
        assert torch.equal(getattr(clean, name)(), getattr(dirty, name)()), name
    assert torch.equal(clean.best()[0], dirty.best()[0])
    assert torch.equal(clean.nbest(2)[0], dirty.nbest(2)[0])
    leaf = spoiled.clone().requires_grad_()
    LinearChain(leaf, *scores[1:], mask).log_partition().sum().backward()
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad[~mask] == 0).all()


def test_not_a_number_comes_out():
    unary = torch.randn(2, 5, 3)
    unary[0, 2, 1] = torch.nan
    found = LinearChain(unary, torch.randn(3, 3)).log_partition()
    assert found[0].isnan()
    assert found[1].isfinite()


def test_rows_and_threads_do_not_change_a_bit():
    torch.manual_seed(0)
    unary, transition = torch.randn(40, 60, 20), torch.randn(20, 20)
    whole = LinearChain(unary, transition).log_partition()
    alone = torch.cat([LinearChain(unary[b : b + 1], transition).log_partition() for b in range(40)])
    assert torch.equal(whole, alone)
    torch.set_num_threads(2)
    try:
        assert torch.equal(LinearChain(unary, transition).log_partition(), whole)
    finally:
        torch.set_num_threads(1)


def test_a_long_row():
    """5,000 steps of scores near 1e3: the sum is known, the best path is found among near ones."""
    unary = torch.full((1, 5000, 2), 1e3)
    unary[0, :, 1] += 1e-3
    chain = LinearChain(unary, torch.zeros(2, 2))
    wanted = 5000 * (unary[0, 0].double().logsumexp(0)).item()
    assert chain.log_partition().item() == pytest.approx(wanted, rel=1e-7)
    assert (chain.best()[0] == 1).all()


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        ({"unary": torch.zeros(2, 3)}, ShapeError, r"unary \(B, T, K\)"),
        ({"transition": torch.zeros(3, 4)}, ShapeError, "transition does not fit"),
        ({"start": torch.zeros(2)}, ShapeError, "start does not fit"),
        ({"mask": torch.ones(3, 2, dtype=torch.bool)}, ShapeError, "mask does not fit"),
        ({"mask": torch.ones(2, 3)}, DTypeError, "torch.bool"),
        ({"end": torch.zeros(3, dtype=torch.float64)}, DTypeError, "torch.float32"),
    ],
)
def test_what_does_not_fit_is_refused(scores, error, words):
    with pytest.raises(error, match=words):
        LinearChain(**{"unary": torch.zeros(2, 3, 3), "transition": torch.zeros(3, 3), **scores})


def test_arguments_that_are_not_possible():
    chain = LinearChain(torch.zeros(2, 3, 3), torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="0 to 2"):
        chain.score(torch.full((2, 3), 3))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        chain.score(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(DTypeError, match="int64"):
        chain.score(torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="k=0"):
        chain.nbest(0)
    with pytest.raises(ConfigError, match="count"):
        chain.sample(0)


def test_half_precision_runs_in_torch():
    unary, transition = torch.randn(2, 4, 3), torch.randn(3, 3)
    got = LinearChain(unary.bfloat16(), transition.bfloat16()).log_partition()
    torch.testing.assert_close(got.float(), LinearChain(unary, transition).log_partition(), rtol=0.03, atol=0.1)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_what_torch_must_see_runs_in_torch():
    """vmap, forward mode, torch.compile and autocast give what the loops give."""
    unary, transition, direction = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 2, 4, 3), (3, 3), (2, 4, 3)))

    def total(u):
        return LinearChain(u, transition).log_partition()

    each = torch.stack([total(u) for u in unary])
    torch.testing.assert_close(torch.vmap(total)(unary), each)
    _, slope = torch.func.jvp(total, (unary[0],), (direction,))
    torch.testing.assert_close(slope, (LinearChain(unary[0], transition).marginals() * direction).sum((1, 2)))
    torch.testing.assert_close(torch.compile(total, backend="eager")(unary[0]), each[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(total(unary[0]), each[0])
