"""The contestants by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from carousel.bench import jax, onnx, ours, torch_loops
from carousel.bench.work import Problem, Side


@dataclass(frozen=True)
class Peer:
    """A contestant.

    Attributes:
        what: it is.
        build: makes it ready for a problem; raises `Unavailable` where it cannot do it.
        usual: whether the command measures it when nobody names contestants.
    """

    what: str
    build: Callable[[Problem], Side]
    usual: bool = True


#: What all are compared with.
OURS = "cpu"
#: Those whose results come out of this library, so that none vouches for another.
OUR_OWN = frozenset({OURS, "nn", "eager", "calls", "dense"})

PEERS: dict[str, Peer] = {
    OURS: Peer("Recurrent on this library's compiled engine", ours.cpu),
    "nn": Peer("this library's LSTM, GRU or RNN in place of torch's", ours.replacement),
    "eager": Peer("Recurrent on this library's eager engine", ours.eager),
    "calls": Peer("beside a stream: one call of the layer's `step` for each, on the compiled engine", ours.single_steps),
    "dense": Peer("beside a ragged batch: Recurrent on rows that are all T long", ours.dense),
    "torch": Peer("torch.nn's LSTM, GRU or RNN", ours.torchs),
    "ops": Peer("torch operations in a Python loop", torch_loops.operations),
    "compile": Peer("that loop with its step under torch.compile", torch_loops.compiled_step, usual=False),
    "compile-loop": Peer("all of that loop under torch.compile; takes minutes", torch_loops.compiled_loop, usual=False),
    "onnxruntime": Peer("ONNX Runtime, forward only", onnx.runtime),
    "jax": Peer("JAX: lax.scan under jit", jax.scan),
}
