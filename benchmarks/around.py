"""Rows of `peers.py` that are not one layer beside another contestant: regularisers, the output layer, bfloat16, memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import Spread, interleaved, progress, ratios

import carousel.nn
from carousel.bench import PEERS, Work
from carousel.bench.compare import far_off, torch_threads
from carousel.bench.ours import streaming
from carousel.bench.report import duration
from carousel.bench.work import Problem, Unavailable
from carousel.nn import Recurrent, VariationalDropout, Zoneout

HEAD = (
    "",
    "threads",
    "ours",
    "against",
    "theirs",
    "times [quartiles]",
    "required",
    "reached",
    "of the GEMM rate",
    "the required would be",
)
PLAIN = 1.3  # times the plain cell's time
OUTPUT_LAYER = 1.8
ROWS, FEATURES, WORDS = 640, 200, 10_000
ROUNDED = 2.0
MEMORY_SHAPE = (1000, 32, 256, 256)
TOLERANCE = 1e-4
# bfloat16 has 8 bits; measured on random weights: 2e-3 of the output's norm.
ROUNDED_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        what: was measured.
        threads: that everyone had.
        peer: with whom it is compared.
        required: how many times our time theirs must be or, with `at_most`, how many times theirs ours may be.
        at_most: turns the ratio round.
        share_required: of the GEMM rate, which serves as well with one thread.
        ours: seconds of one run; MiB for memory.
        theirs: the same.
        ratio: round by round.
        share: of the GEMM rate.
        needed: the share of the GEMM rate at which the required ratio would be reached: above 100 % it cannot be here.
        unit: of `ours` and `theirs`.
        why_not: what keeps the row from being measured.
    """

    what: str
    threads: int
    peer: str
    required: float
    at_most: bool = False
    share_required: float | None = None
    ours: Spread | None = None
    theirs: Spread | None = None
    ratio: Spread | None = None
    share: Spread | None = None
    needed: float | None = None
    unit: str = "s"
    why_not: str = ""

    def measured(self, ours: Spread | None, theirs: Spread | None, ratio: Spread, share: Spread | None = None) -> Row:
        """The row with its numbers."""
        needed = None if share is None or self.at_most else share.median / ratio.median * self.required
        return replace(self, ours=ours, theirs=theirs, ratio=ratio, share=share, needed=needed)

    def left_out(self, why: str) -> Row:
        """The row without."""
        return replace(self, why_not=why)

    @property
    def reached(self) -> bool | None:
        """Whether the median is what is required; None where nothing was measured."""
        if self.ratio is None:
            return None
        if self.at_most:
            return self.ratio.median <= self.required
        shared = self.share_required is not None and self.threads == 1 and self.share is not None
        return self.ratio.median >= self.required or bool(shared and self.share.median >= self.share_required)

    def cells(self) -> list[str]:
        """The texts of the columns."""
        required = f"{'<=' if self.at_most else '>='} {self.required:.2g}"
        if self.share_required and self.threads == 1:
            required += f" or {self.share_required * 100:.0f} %"
        reached = {None: "not measured", True: "yes", False: "no"}[self.reached]
        share = "" if self.share is None else f"{self.share.median * 100:.0f} %"
        ratio = "" if self.ratio is None else self.ratio.text(2) if self.ours else f"{self.ratio.median:.2f}"
        return [
            self.what, str(self.threads), self._amount(self.ours), self.peer, self._amount(self.theirs), ratio, required,
            reached, share, "" if self.needed is None else f"{self.needed * 100:.0f} %",
        ]  # fmt: skip

    def _amount(self, amount: Spread | None) -> str:
        if amount is None:
            return ""
        return duration(amount.median) if self.unit == "s" else f"{amount.median:.0f} {self.unit}"


def right(what: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], tolerance: float) -> None:
    """Stop where a result is wrong."""
    for name, distance in far_off(found, expected).items():
        if not distance < tolerance:
            raise SystemExit(f"{what}: {name} is off by {distance:.1e} of its norm")


# --- regularisers ---------------------------------------------------------------------------------------------------------


def _train(layer: Recurrent, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Forward and backward; the output and all gradients."""
    x.grad = None
    layer.zero_grad()
    output, _ = layer(x, seed=seed)
    output.backward(torch.ones_like(output))
    return {"output": output.detach(), "d x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}


def regularised(threads: Sequence[int], repeats: int, quick: bool) -> list[Row]:
    """An LSTM with zoneout or variational dropout in training, beside the plain one."""
    rows = []
    kinds = {"zoneout": (Zoneout(0.1),), "variational dropout": (VariationalDropout(0.2),)}
    shapes = ((3, 2, 5),) if quick else ((100, 32, 256), (200, 16, 64))
    for T, B, H in shapes:
        x = torch.randn(T, B, H, requires_grad=True)
        layers = {name: Recurrent("lstm", H, H, transforms=kind, engine="cpu") for name, kind in {"plain": (), **kinds}.items()}
        for name, layer in layers.items():
            eager = Recurrent("lstm", H, H, transforms=layer.transforms, engine="eager")
            eager.load_state_dict(layer.state_dict())
            right(f"lstm with {name}", _train(layer, x), {n: t.double() for n, t in _train(eager, x).items()}, TOLERANCE)
        for count in threads:
            progress(f"regularised, {T} x {B} x {H}, {count} thread(s)")
            with torch_threads(count):
                taken = interleaved({name: partial(_train, layer, x) for name, layer in layers.items()}, repeats)
            plain = Spread.of(taken["plain"])
            for name in kinds:
                row = Row(f"lstm train {T}x{B}x{H}x{H}, {name}", count, "plain lstm", PLAIN, at_most=True)
                rows.append(row.measured(Spread.of(taken[name]), plain, ratios(taken[name], taken["plain"])))
    return rows


# --- the output layer -----------------------------------------------------------------------------------------------------


def words(threads: Sequence[int], repeats: int, quick: bool) -> list[Row]:
    """The output layer of a language model with its loss, forward and backward, beside torch's two."""
    count, features, labels = (7, 5, 11) if quick else (ROWS, FEATURES, WORDS)
    text = f"output layer with loss, {count} rows x {features}, {labels:,} words"
    kind = getattr(carousel.nn, "SoftmaxLoss", None)
    if kind is None:
        return [Row(text, n, "torch", OUTPUT_LAYER).left_out("carousel.nn has no SoftmaxLoss yet") for n in threads]
    ours, theirs = kind(features, labels), torch.nn.Linear(features, labels)
    ours.load_state_dict(theirs.state_dict())
    x, target = torch.randn(count, features, requires_grad=True), torch.randint(labels, (count,))

    def train(module: Any, loss: Any) -> dict[str, torch.Tensor]:
        x.grad = None
        module.zero_grad()
        value = loss(x)
        value.backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        return {"loss": value.detach(), "d x": x.grad, **gradients}

    def one() -> dict[str, torch.Tensor]:
        return train(ours, lambda x: ours(x, target))

    def other() -> dict[str, torch.Tensor]:
        return train(theirs, lambda x: torch.nn.functional.cross_entropy(theirs(x), target))

    right(text, one(), {name: tensor.double() for name, tensor in other().items()}, TOLERANCE)
    rows = []
    for n in threads:
        progress(f"{text}, {n} thread(s)")
        with torch_threads(n):
            taken = interleaved({"ours": one, "torch": other}, repeats)
        row = Row(text, n, "torch", OUTPUT_LAYER)
        rows.append(row.measured(Spread.of(taken["ours"]), Spread.of(taken["torch"]), ratios(taken["torch"], taken["ours"])))
    return rows


# --- bfloat16 -------------------------------------------------------------------------------------------------------------


def rounded_weights(threads: Sequence[int], repeats: int, quick: bool) -> list[Row]:
    """A stream whose weights are kept in bfloat16, beside ONNX Runtime in float32. One thread, as is required."""
    rows = []
    for cell in ("lstm", "gru"):
        problem = Problem.draw(Work(cell, *((3, 1, 16, 16) if quick else (200, 1, 256, 256)), mode="step"))
        row = Row(f"{cell} step {problem.work.shape}, bf16 weights", 1, "onnxruntime", ROUNDED)
        layer = Recurrent(cell, problem.work.I, problem.work.H, engine="cpu").eval()
        layer.load_state_dict(problem.layer.state_dict())
        if not hasattr(layer, "inference_weights"):
            rows.append(row.left_out("Recurrent has no inference_weights yet"))
            continue
        with torch_threads(1):
            whole = streaming(problem, layer).results()["output"]
            layer.inference_weights = "bfloat16"
            ours = streaming(problem, layer)
            found = ours.results()
            if torch.equal(found["output"], whole):
                rows.append(row.left_out("a stream does not use inference_weights yet"))
                continue
            right(row.what, found, problem.expected(), ROUNDED_TOLERANCE)
            try:
                theirs = PEERS["onnxruntime"].build(problem)
            except Unavailable as reason:
                rows.append(row.left_out(str(reason)))
                continue
            progress(row.what)
            taken = interleaved({"ours": ours.run, "theirs": theirs.run}, 3 * repeats if repeats > 1 else 1)
        rows.append(row.measured(Spread.of(taken["ours"]), Spread.of(taken["theirs"]), ratios(taken["theirs"], taken["ours"])))
    return rows if 1 in threads else []


# --- memory ---------------------------------------------------------------------------------------------------------------


def memory(threads: Sequence[int], repeats: int, quick: bool) -> list[Row]:
    """The most memory that training an LSTM needs, each kind of layer in a process of its own. Once: it does not vary."""
    del threads, repeats
    shape = (5, 2, 8, 8) if quick else MEMORY_SHAPE
    found: dict[str, Spread] = {}
    for kind in ("Recurrent", "nn", "torch"):
        progress(f"memory of {kind}")
        command = [sys.executable, __file__, kind, *map(str, shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"around.py {kind} failed:\n{done.stderr}")
        most = json.loads(done.stdout)
        found[kind] = Spread(most, most, most)
    ours = max(found["Recurrent"], found["nn"], key=lambda spread: spread.median)
    text = f"peak memory, lstm train {'x'.join(map(str, shape))}"
    row = Row(text, 1, "torch", 1.0, at_most=True, unit="MiB")
    return [row.measured(ours, found["torch"], ratios([ours.median], [found["torch"].median]))]


def most_memory(kind: str, T: int, B: int, I: int, H: int) -> float:  # noqa: E741
    """MiB that three rounds of training add to a process in which everything is imported and has run once, tiny."""
    torch.set_num_threads(1)
    makers: dict[str, Any] = {
        "Recurrent": lambda I, H: Recurrent("lstm", I, H, engine="cpu"),  # noqa: E741
        "nn": carousel.nn.LSTM,
        "torch": torch.nn.LSTM,
    }

    def train(T: int, B: int, I: int, H: int, rounds: int) -> None:  # noqa: E741
        layer, x = makers[kind](I, H), torch.randn(T, B, I, requires_grad=True)
        for _ in range(rounds):
            layer.zero_grad()
            output = layer(x)[0]
            output.backward(torch.ones_like(output))

    train(3, B, I, H, 1)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the high-water mark starts anew
    before = _kib("VmRSS")
    train(T, B, I, H, 3)
    return (_kib("VmHWM") - before) / 1024


def _kib(name: str) -> float:
    """What this process holds (VmRSS), or the most it held (VmHWM), in KiB."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    name, *sizes = sys.argv[1:]
    print(json.dumps(most_memory(name, *map(int, sizes))))
