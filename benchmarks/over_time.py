"""Rows about whole loops over time: the recurrent operations alone, with one thread and with two.

What comes before the loop (the products of the inputs) and after it (those of the weights' gradients) is torch's and not timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from products import share_of
from report import Bench, Row, Shape
from timing import Action, Spread, interleaved, progress, ratios
from torch import Tensor

from carousel.cells import resolve_cell
from carousel.engines.call import Call as Request
from carousel.engines.cpu import threads
from carousel.engines.cpu.programs import Programs, Wanted, programs
from carousel.engines.cpu.run import Call, CpuExecutor
from carousel.engines.eager import Executor
from carousel.engines.eager.execute import Run
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule, Section
from carousel.graph.shapes import Sizes, concrete
from carousel.graph.step import Step
from carousel.nn import Recurrent
from carousel.nn.parameters import CellParameters

#: Required: shares of the large product's rate, and how much faster two threads are.
FORWARD = {"lstm": 0.80}
BOTH = dict.fromkeys(("lstm", "peephole_lstm", "coupled_lstm", "gru", "gru_reset_after"), 0.78)
TWO_THREADS = 1.8
THREADED = ("lstm", "gru")
CELLS = (*BOTH, "elman")
SHAPES: tuple[Shape, ...] = ((100, 32, 256), (35, 20, 640))
# float32 beside float64, hundreds of roundings one after another: 1e-6 to 1e-5 of the largest number was measured.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Cost:
    """Of the products of one row and step.

    Attributes:
        operations: additions and multiplications.
        weights: bytes of the matrices.
    """

    operations: int
    weights: int


def cost(schedule: Schedule, sizes: Sizes) -> Cost:
    """What a loop's products cost."""
    operations = weights = 0
    for stage in schedule.sections[Section.LOOP]:
        for group in stage.groups:
            inner = sum(concrete(operand.shape, sizes)[-1] for operand in group.nodes[0].args[1::2])
            count = sum(prod(concrete(node.shape, sizes)) for node in group.nodes) * inner
            operations, weights = operations + 2 * count, weights + 4 * count
    return Cost(operations, weights)


class Timed:
    """A compiled loop with values, which can be run again and again, and checked against the eager engine in float64.

    Args:
        name: for messages.
        executor: whose loop.
        given: by node, as for the executor's `run`. Not changed.
        start: by name, what the rows start with. Not changed.
        steps: how many; all rows reach all.
        sizes: of the axes.
        reverse: the loop runs from the last step to the first.
    """

    def __init__(
        self,
        name: str,
        executor: CpuExecutor,
        given: Mapping[Node, Tensor],
        start: Mapping[str, Tensor],
        steps: int,
        sizes: Sizes,
        reverse: bool,
    ) -> None:
        self.name, self.executor = name, executor
        self.given, self.start = given, start
        self.batch_sizes = [next(iter(start.values())).shape[0]] * steps
        self.sizes, self.reverse = sizes, reverse
        self.cost = cost(executor.schedule, sizes)
        self.operations = float(self.cost.operations * sum(self.batch_sizes))

    def call(self, members: int) -> LoopCall:
        """The loop, ready to run in this many threads."""
        return LoopCall(self, members)

    def expected(self) -> Run:
        """What the eager engine computes, in float64."""
        given = {node: tensor.double() if tensor.is_floating_point() else tensor for node, tensor in self.given.items()}
        start = {name: tensor.double() for name, tensor in self.start.items()}
        with torch.no_grad():
            return Executor(self.executor.schedule).run(given, start, self.batch_sizes, self.sizes, reverse=self.reverse)

    def check(self, got: Run, expected: Run) -> None:
        """Stop where a result is wrong."""
        for part in ("emitted", "carried", "totals"):
            for name, wanted in getattr(expected, part).items():
                found = getattr(got, part)[name].double()
                error = ((found - wanted).abs().max() / (wanted.abs().max() + 1e-30)).item() if wanted.numel() else 0.0
                if not error < TOLERANCE:
                    raise SystemExit(f"{self.name}: {part} {name} is wrong, relative error {error}")


def same_layout(values: Mapping[Node, Tensor]) -> dict[Node, Tensor]:
    """Copies that lie in memory as the values do: what lay side by side does so again."""
    storages: dict[int, torch.UntypedStorage] = {}
    copies = {}
    for node, value in values.items():
        storage = value.untyped_storage()
        copy = storages.setdefault(storage.data_ptr(), storage.clone())  # type: ignore[no-untyped-call]
        copies[node] = torch.empty(0, dtype=value.dtype).set_(copy, value.storage_offset(), value.shape, value.stride())
    return copies


class LoopCall:
    """A `Timed` loop's arguments and memory.

    A run may write over what it was given (where that is not read again), and leaves its last states where it found the first:
    `restore` puts back what was there. Without it, numbers would drift from run to run, in the end to subnormal ones.
    """

    def __init__(self, timed: Timed, members: int) -> None:
        given = same_layout(timed.given)
        with torch.no_grad():
            begun = timed.executor.begin(given, timed.start, timed.batch_sizes, timed.sizes, reverse=timed.reverse)
            # Only `finish` hands the call's memory back, for the next call to use: until then it can run any number of times.
            self.inner = Call(timed.executor, begun, members, members, consume=True)
        self.begun, self.timed, self.members = begun, timed, self.inner.team.members
        self.job = self.inner.job()
        storages = {value.untyped_storage().data_ptr() for value in begun.values if isinstance(value, Tensor)}
        over = [tensor for tensor in self.inner.kept.values() if tensor.untyped_storage().data_ptr() in storages]
        self.before = [(tensor, tensor.clone()) for tensor in (*self.inner.states.values(), *over)]

    def restore(self) -> None:
        """Make the memory what it was before the first run."""
        for tensor, copy in self.before:
            tensor.copy_(copy)

    def run(self) -> None:
        """The loop, once."""
        threads.run([self.job], self.members)

    def finish(self) -> Run:
        """The results of the last run; there can be no other run."""
        with torch.no_grad():
            return self.timed.executor.finish(self.begun, *self.inner.finish())

    def limits(self, rate: float, kernels: Any, seconds: float) -> dict[str, float]:
        """Parts of the time that this loop's operations and bytes would take alone.

        Args:
            rate: the large product's.
            kernels: which know how quickly one thread reads.
            seconds: of one run.
        """
        timed, rows = self.timed, sum(self.timed.batch_sizes)
        reads = len(timed.batch_sizes) * self.inner.numbers["groups"]
        lines = [tensor for tensor in self.inner.held if isinstance(tensor, Tensor) and tensor.dim() and len(tensor) >= rows]
        seen = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in lines}
        values, weights = sum(seen.values()), timed.cost.weights
        found = {"operations": timed.operations / rate}
        found["weights"] = weights * reads / kernels.reading_rate(weights) if weights else 0.0
        found["values"] = values / kernels.reading_rate(values)
        return {name: part / seconds for name, part in found.items()}

    @property
    def split(self) -> str:
        """How the work is shared."""
        return f"{self.members} by {'columns' if self.inner.team.columns else 'rows'}"


class Loops:
    """A cell's loops: forwards alone, forwards with what is saved, backwards.

    Args:
        cell: its name.
        shape: T, B and H; the inputs have H features.
    """

    def __init__(self, cell: str, shape: Shape) -> None:
        T, B, H = shape
        torch.manual_seed(0)
        layer, step = Recurrent(cell, H, H, engine="cpu"), resolve_cell(cell).graph
        part, found = layer.layers[0], programs(step)
        assert isinstance(part, CellParameters)
        parameters = {name: value.detach() for name, value in part.values().items() if name in step.parameters}
        states = {name: torch.randn(B, *concrete(node.shape, part.sizes)) * 0.1 for name, node in step.states.items()}
        request = Request(step, {name: torch.randn(T * B, H) for name in step.inputs}, states, parameters, [B] * T, part.sizes)
        given = request.given()
        text = f"{cell} T {T} B {B} H {H}"
        self.alone = Timed(f"forward {text}", found.alone, given, states, T, part.sizes, False)
        self.saving = Timed(f"forward, saving {text}", found.saving, given, states, T, part.sizes, False)
        with torch.no_grad():  # the backward loop meets what is saved as the forward one leaves it in memory
            saved = found.saving.run(given, states, request.batch_sizes, part.sizes)
        backward, known = _backward(step, found, request, saved)
        d_final = {name: torch.randn_like(state) for name, state in states.items()}
        self.backward = Timed(f"backward {text}", backward, known, d_final, T, part.sizes, True)

    @property
    def all(self) -> tuple[Timed, Timed, Timed]:
        """The three loops."""
        return self.alone, self.saving, self.backward

    def calls(self, members: int) -> list[LoopCall]:
        """All loops, checked, for this many threads."""
        for timed in self.all:
            call = timed.call(members)
            call.run()
            call.restore()
            call.run()  # what is timed has been run and restored before
            timed.check(call.finish(), timed.expected())
        return [timed.call(members) for timed in self.all]


def _backward(step: Step, found: Programs, request: Request, saved: Run) -> tuple[CpuExecutor, dict[Node, Tensor]]:
    """The backward program to all gradients, and what it is given."""
    learned = frozenset(name for name, parameter in step.parameters.items() if parameter.learned)
    executor = found.backward(Wanted(frozenset(step.inputs), learned, frozenset()))
    known = request.given()
    emitted = {**found.trail, **found.saved_names}
    known |= {node: saved.emitted[name] for name, node in emitted.items()}
    output = saved.emitted["output"]
    known.setdefault(step.output, output)
    known[found.plan.gradients.of_output] = torch.randn_like(output)
    return executor, {node: known[node] for node in executor.program.given}


# --- rows -----------------------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> list[Row]:
    """The loops of each cell, with one thread."""
    rows = []
    for shape in bench.shapes:
        for cell in bench.cells:
            progress(f"loops of {cell}, {shape}")
            alone, saving, backward = calls = Loops(cell, shape).calls(1)
            names = ("alone", "saving", "backward")
            actions = {name: call.run for name, call in zip(names, calls, strict=True)}
            before = {name: call.restore for name, call in zip(names, calls, strict=True)}
            taken = interleaved({**actions, "gemm": bench.gemm.run}, bench.repeats, {"gemm": 1}, before)
            both = [a + b for a, b in zip(taken["saving"], taken["backward"], strict=True)]
            gemm = Spread.of(taken["gemm"]).median
            text, rate = "{} " + saving.timed.name.partition("saving ")[2], bench.gemm.operations / gemm
            for what, key, call, required in (
                ("forward", "alone", alone, FORWARD.get(cell)),
                ("forward, saving", "saving", saving, FORWARD.get(cell)),
                ("backward", "backward", backward, None),
            ):
                share, time = share_of(bench.gemm, call.timed.operations, taken[key], taken["gemm"]), Spread.of(taken[key])
                limits = call.limits(rate, bench.kernels, time.median)
                rows.append(Row(text.format(what), time, share, "%", required, limits=limits, more={"split": call.split}))
            work = saving.timed.operations + backward.timed.operations
            share = share_of(bench.gemm, work, both, taken["gemm"])
            rows.append(Row(text.format("forward + backward"), Spread.of(both), share, "%", BOTH.get(cell)))
    return rows


def measure_threads(bench: Bench) -> list[Row]:
    """Two threads beside one, for the loops and, in the same rounds, a large product: it tells whether both cores were free."""
    rows = []
    size = 64 if bench.quick else 1024
    x = torch.randn(size, size)
    for shape in bench.shapes:
        for cell in [cell for cell in THREADED if cell in bench.cells]:
            progress(f"two threads, {cell}, {shape}")
            loops = Loops(cell, shape)
            calls = {count: loops.calls(count)[1:] for count in (1, 2)}
            actions: dict[str, Action] = {}
            before: dict[str, Action] = {}
            for count, (forward, backward) in calls.items():
                actions |= {f"forward {count}": forward.run, f"backward {count}": backward.run}
                before |= {f"forward {count}": forward.restore, f"backward {count}": backward.restore}
                actions[f"product {count}"] = partial(product_with, count, x)
            warm = {"product 1": 1, "product 2": 1}
            taken = interleaved(actions, bench.repeats, warm, before)
            text = f"{cell} T {shape[0]} B {shape[1]} H {shape[2]}"
            parts = {"forward": ["forward"], "backward": ["backward"], "forward + backward": ["forward", "backward"]}
            split = [call.split for call in calls[2]]
            for what, keys in {**parts, f"torch.mm {size} beside": ["product"]}.items():
                one, two = ([sum(each) for each in zip(*(taken[f"{k} {n}"] for k in keys), strict=True)] for n in (1, 2))
                required = TWO_THREADS if len(keys) > 1 else None
                more = {"split": split, "best over best": min(one) / min(two)}
                row = Row(f"2 threads, {what} {text}", Spread.of(two), ratios(one, two), "x", required, more=more)
                rows.append(row)
    return rows


def product_with(count: int, x: Tensor) -> None:
    """A large product with so many of torch's threads, and one thread again."""
    torch.set_num_threads(count)
    torch.mm(x, x)
    torch.set_num_threads(1)
