"""Sums over all paths and best paths by the compiled loops: what is prepared before, and which rows need logarithms.

**When a number that became zero cannot matter.** Let r be the largest less the smallest score of a transition, all of which are
finite. Then any two states' chances of the future differ by a factor of e^r at most, whatever the scores of the steps, since
both can go to every next state. A state whose alpha is below the range of the type, beside the largest, has at most that times
e^r of the sum; a score that falls out of the range has e^(2r) at most. So nothing is lost in float32 for r <= 32, in float64
for r <= 300.

Where some transitions are forbidden, or r is larger, the loops watch: a number that is not zero by a constraint and falls
below a bound marks its row as *lost*, and the row is computed again with logarithms. Where the transitions themselves leave
the range, all rows are.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from carousel.engines.cpu import threads
from carousel.engines.cpu.compile import Code
from carousel.engines.cpu.compile import compiled as compiled_code
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import WORTH_A_THREAD
from carousel.engines.cpu.vectors import REALS, Real
from carousel.structured.kernels import exact, scaled, viterbi
from carousel.structured.kernels.common import UNROLL
from carousel.structured.steps import Steps

__all__ = ["Expected", "Scores", "Sums", "best_paths", "exact_sums", "expected", "mean_scores", "sums"]

# The range of transitions within which nothing can be lost, and beyond which they are themselves out of range; in nats.
_SAFE = {torch.float32: 32.0, torch.float64: 300.0}
_POSSIBLE = {torch.float32: 41.0, torch.float64: 230.0}

# Operations of a step beside its product, for each state: exponentials and passes.
_OTHER = 60


@dataclass(frozen=True)
class Scores:
    """The scores of a batch of chains, one type, on the CPU.

    Attributes:
        unary: (B, T, K), each step's K side by side; or (1, P, K), the real steps of all rows.
        transition: (K, K), from the row's state to the column's.
        start: (K,), or None.
        end: (K,), or None.
        steps: the real steps.
    """

    unary: Tensor
    transition: Tensor
    start: Tensor | None
    end: Tensor | None
    steps: Steps


@dataclass
class Sums:
    """A forward pass and what it left.

    Attributes:
        log_sum: (B,), float64, of each row's paths.
        score: (B,), float64, of each row's tags; zeros without tags.
        alpha: (P, padded), as `kernels/scaled.py` says.
        e: the same, for the backward pass; the pairs' factor after it.
        out: (B, 3), float64.
        watched: whether `out` says which rows are lost.
        matrices: (2, K padded, padded), the exponentials of transitions, and turned.
        again: what logarithms gave for lost rows.
    """

    log_sum: Tensor
    score: Tensor
    alpha: Tensor
    e: Tensor
    out: Tensor
    watched: bool
    matrices: Tensor
    again: Exact | None = None


@dataclass(frozen=True)
class Exact:
    """Rows computed with logarithms, all in float64.

    Attributes:
        rows: which.
        picked: their steps, among all.
        first: where each row's steps begin among these.
        log_sum: of each.
        alpha: (P', padded): logarithms.
        u: (P', padded).
    """

    rows: Tensor
    picked: Tensor
    first: Tensor
    log_sum: Tensor
    alpha: Tensor
    u: Tensor


# --- preparing ------------------------------------------------------------------------------------------------------


def _real(dtype: torch.dtype) -> Real:
    return REALS[str(dtype).removeprefix("torch.")]


@functools.cache
def _lanes(dtype: torch.dtype) -> int:
    return target().bits // _real(dtype).bits


@functools.cache
def _sources() -> str:
    """The hash of what writes the code, which the cache's own key does not know."""
    parts = [path.read_bytes() for path in sorted((Path(__file__).parent / "kernels").glob("*.py"))]
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


@functools.cache
def _code(name: str, dtype: torch.dtype) -> Code:
    cpu, real = target(), _real(dtype)
    builder = {"scaled": scaled, "viterbi": viterbi, "exact": exact}[name].build
    return compiled_code(lambda: builder(cpu, real), (f"chain.{name}", real.name, _sources()), cpu)


def _padded(size: int, dtype: torch.dtype) -> int:
    lanes = _lanes(dtype)
    return -(-size // lanes) * lanes


def _edges(scores: Scores, dtype: torch.dtype | None = None) -> Tensor:
    """What is added to a step's scores at a row's start, between, and at its end; padded with minus infinity."""
    K, dtype = scores.unary.shape[-1], dtype or scores.unary.dtype
    edges = torch.full((3, _padded(K, dtype)), -torch.inf, dtype=dtype)
    edges[:, :K] = 0.0
    for row, given in ((0, scores.start), (2, scores.end)):
        if given is not None:
            edges[row, :K] = given.detach()
    return edges


def _matrix(values: Tensor, rows: int, fill: float) -> Tensor:
    K = values.shape[0]
    padded = values.new_full((rows, _padded(K, values.dtype)), fill)
    padded[:K, :K] = values
    return padded


@functools.cache
def _one(K: int, dtype: torch.dtype) -> Tensor:
    """A row with a single 1, then a matrix whose first row is ones for each state: what stands before a row's first step."""
    with torch.inference_mode(False):
        line = _padded(K, dtype)
        one = torch.zeros((1 + UNROLL, line), dtype=dtype)
        one[0, 0] = 1.0
        one[1, :K] = 1.0
        return one


def _places(steps: Steps, K: int, dtype: torch.dtype) -> Tensor:
    return steps.stored * (K * _real(dtype).size)


def _run(name: str, function: str, dtype: torch.dtype, words: list[int], members: int) -> None:
    held = np.array(words, dtype=np.int64)
    threads.run([(_code(name, dtype).address(function), held.ctypes.data)], members)


def _members(rows: int, steps: int, K: int) -> int:
    return max(1, min(threads.default_threads(), rows, int(steps * K * (2 * K + _OTHER) / WORTH_A_THREAD)))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


# --- sums over all paths ----------------------------------------------------------------------------------------------


def sums(scores: Scores, tags: Tensor | None = None) -> Sums:
    """The forward pass.

    Args:
        scores: of the chains.
        tags: (P,), int64, a path whose score is wanted too; None without.
    """
    dtype, K, steps = scores.unary.dtype, scores.unary.shape[-1], scores.steps
    transition = scores.transition.detach().contiguous()
    table = transition.numpy()
    with np.errstate(all="ignore"):
        largest, least = float(table.max()), float(table.min())
        forbidden = least == -np.inf
        if forbidden:
            least = float(np.where(table == -np.inf, np.inf, table).min())
        highest = largest if largest > -np.inf else 0.0
        exponentials = np.exp(table - table.dtype.type(highest))
    watched = forbidden or not largest - least <= _SAFE[dtype]
    rows = -(-K // UNROLL) * UNROLL
    both = np.zeros((2, rows, _padded(K, dtype)), dtype=table.dtype)
    both[0, :K, :K], both[1, :K, :K] = exponentials, exponentials.T
    matrices = torch.from_numpy(both)
    alpha, e = (scores.unary.new_empty((steps.count, _padded(K, dtype))) for _ in range(2))
    out = torch.empty((steps.batch, len(scaled.OUT)), dtype=torch.float64)
    edges, constant = _edges(scores), np.array([highest])
    held = (steps.first, _places(steps, K, dtype), scores.unary, *edges, matrices[0], transition, _one(K, dtype), alpha, e)
    words = [steps.batch, K, rows, *map(_address, held), _address(tags), constant.ctypes.data, out.data_ptr()]
    _run("scaled", "forward", dtype, words, _members(steps.batch, steps.count, K))
    made = Sums(out[:, 0], out[:, 1], alpha, e, out, watched, matrices)
    if watched:
        if not largest - least <= _POSSIBLE[dtype] and largest != -np.inf:
            out[:, -1] = 1.0
        _again(scores, made)
    return made


def _again(scores: Scores, made: Sums) -> None:
    """Rows that are lost, with logarithms."""
    lost = made.out[:, -1] != 0
    if bool(lost.any()):
        made.again = exact_sums(scores, lost.nonzero().view(-1))
        made.log_sum = made.log_sum.index_copy(0, made.again.rows, made.again.log_sum)


@dataclass(frozen=True)
class Expected:
    """What a backward pass gives.

    Attributes:
        unary: of each step's states, laid as the scores are; zero in masked steps.
        transition: (K, K), over all rows.
        start: (K,).
        end: (K,).
    """

    unary: Tensor
    transition: Tensor
    start: Tensor
    end: Tensor


def expected(scores: Scores, made: Sums, gain: Tensor, tags: Tensor | None = None) -> Expected:
    """The backward pass, once for each forward pass: how often states and transitions are expected.

    Args:
        scores: as given to the forward pass.
        made: what it left. `e` is changed.
        gain: (B,), of the scores' type: what each row's expectations are multiplied by.
        tags: as given to the forward pass; what they count is taken away.
    """
    unary, K, steps = scores.unary, scores.unary.shape[-1], scores.steps
    dtype = unary.dtype
    # Without holes in the mask every number is written.
    everywhere = steps.count == unary.shape[0] * unary.shape[1]
    gradient = torch.empty_like(unary) if everywhere else torch.zeros_like(unary)
    gain, places = gain.contiguous(), _places(steps, K, dtype)
    members = _members(steps.batch, steps.count, K)
    room = unary.new_empty(3 * members * _padded(K, dtype))
    held = (steps.first, places, made.matrices[1], made.alpha, made.e, tags, gain, gradient, made.out, room)
    _run("scaled", "backward", dtype, [steps.batch, K, made.matrices.shape[1], *map(_address, held)], members)
    extra = _expected_again(scores, made, gain, gradient, tags) if made.watched else None
    # alpha'[i] and gamma[j] of all steps at once; a row's first step has a gamma of zero.
    pairs = (made.alpha[:-1].mT @ made.e[1:])[:K, :K] * made.matrices[0, :K, :K]
    if extra is not None:
        pairs = pairs + extra
    edges = unary.new_zeros((2, K))
    given = (steps.first, places, tags, gain, gradient, edges[0], edges[1], pairs)
    _run("scaled", "ends", dtype, [steps.batch, K, *map(_address, given)], 1)
    return Expected(gradient, pairs, edges[0], edges[1])


def mean_scores(scores: Scores, unary: Tensor, transition: Tensor, start: Tensor | None, end: Tensor | None) -> Tensor | None:
    """The mean of a quantity that adds up along a path, for each row; None where a row is lost.

    Args:
        scores: of the chains.
        unary: (B, T, K), what each state adds at each step; finite in real steps.
        transition: (K, K), what each transition adds.
        start: (K,), or None.
        end: (K,), or None.
    """
    made, steps, K = sums(scores), scores.steps, scores.unary.shape[-1]
    states = expected(scores, made, scores.unary.new_ones(steps.batch)).unary
    if made.again is not None:
        return None
    own = states.reshape(-1, K)[steps.flat]
    added = (own * unary.reshape(-1, K)[steps.flat]).sum(1)
    pairs = made.alpha[:-1, :K] @ (made.matrices[0, :K, :K] * transition) * made.e[1:, :K]
    added[1:] += pairs.sum(1)
    mean = added.new_zeros(steps.batch).index_add(0, steps.rows, added)
    there = (steps.counts > 0).nonzero().view(-1)
    for edge, place in ((start, steps.first[:-1]), (end, steps.first[1:] - 1)):
        if edge is not None:
            mean.index_add_(0, there, own[place[there]] @ edge)
    return mean


def _expected_again(scores: Scores, made: Sums, gain: Tensor, gradient: Tensor, tags: Tensor | None) -> Tensor | None:
    lost = made.out[:, -1] != 0
    if not bool(lost.any()):
        return None
    rows = lost.nonzero().view(-1)
    if made.again is None or len(made.again.rows) != len(rows):
        made.again = exact_sums(scores, rows)
    marginals, pairs = _exact_backward(scores, made.again, gain[rows].double())
    if tags is not None:
        at = tags[made.again.picked]
        taken = -gain[scores.steps.rows[made.again.picked]].double()
        marginals[torch.arange(len(at)), at] += taken
    K = gradient.shape[-1]
    flat = gradient.as_strided((gradient.shape[0] * gradient.shape[1], K), (K, 1))
    flat[scores.steps.stored[made.again.picked]] = marginals.to(gradient.dtype)
    # What was left of these rows must not be counted, and may be infinite.
    made.alpha[made.again.picked] = 0.0
    made.e[made.again.picked] = 0.0
    return pairs.to(gradient.dtype)


def exact_sums(scores: Scores, rows: Tensor) -> Exact:
    """The forward pass of some rows with logarithms.

    Args:
        scores: of all chains.
        rows: which, int64.
    """
    steps, K = scores.steps, scores.unary.shape[-1]
    counts = steps.counts[rows]
    first = torch.zeros(len(rows) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=first[1:])
    picked = torch.arange(int(first[-1])) + torch.repeat_interleave(steps.first[rows] - first[:-1], counts)
    unary = scores.unary.as_strided((scores.unary.shape[0] * scores.unary.shape[1], K), (K, 1))[steps.stored[picked]].double()
    line = _padded(K, torch.float64)
    alpha, u = (unary.new_empty((len(picked), line)) for _ in range(2))
    log_sum = unary.new_empty(len(rows))
    edges = _edges(scores, torch.float64)
    places = torch.arange(len(picked)) * (8 * K)
    matrix = _matrix(scores.transition.double(), K, -torch.inf)
    held = (first, places, unary, *edges, matrix, alpha, u, log_sum, unary.new_empty(3 * line))
    _run("exact", "exact_forward", torch.float64, [len(rows), K, *map(_address, held)], 1)
    return Exact(rows, picked, first, log_sum, alpha, u)


def _exact_backward(scores: Scores, made: Exact, gain: Tensor) -> tuple[Tensor, Tensor]:
    K, line = scores.unary.shape[-1], made.alpha.shape[1]
    transition = scores.transition.double()
    matrix, turned = _matrix(transition, K, -torch.inf), _matrix(transition.mT, K, -torch.inf)
    marginals = torch.empty((len(made.picked), K), dtype=torch.float64)
    pairs = torch.zeros((K, line), dtype=torch.float64)
    places = torch.arange(len(made.picked)) * (8 * K)
    held = (made.first, places, matrix, turned, made.alpha, made.u, gain, marginals, pairs, pairs.new_empty(3 * line))
    _run("exact", "exact_backward", torch.float64, [len(made.rows), K, *map(_address, held)], 1)
    return marginals, pairs[:, :K]


# --- best paths -------------------------------------------------------------------------------------------------------


def best_paths(scores: Scores) -> tuple[Tensor, Tensor]:
    """The best path of each row.

    Args:
        scores: of the chains.

    Returns:
        (P,), int64, the state of each step; (B,), float64, the paths' scores.
    """
    dtype, K, steps = scores.unary.dtype, scores.unary.shape[-1], scores.steps
    line, members = _padded(K, dtype), _members(steps.batch, steps.count, K)
    matrix = _matrix(scores.transition, K, -torch.inf)
    back = torch.empty((steps.count, line), dtype=torch.int32 if dtype is torch.float32 else torch.int64)
    path, out = torch.empty(steps.count, dtype=torch.int64), torch.empty(steps.batch, dtype=torch.float64)
    edges = _edges(scores)
    room = scores.unary.new_empty(3 * members * line)
    held = (steps.first, _places(steps, K, dtype), scores.unary, *edges, matrix, back, path, out, room)
    _run("viterbi", "viterbi", dtype, [steps.batch, K, *map(_address, held)], members)
    return path, torch.where(steps.counts > 0, out, 0.0)
