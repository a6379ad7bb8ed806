"""Rows about the product of a few rows with packed weights, and about packing them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np
import torch
from llvmlite import ir
from report import Bench, Row
from timing import Action, Gemm, Spread, interleaved, progress, ratios

from carousel.engines.cpu.compile import load, object_code
from carousel.engines.cpu.frames import at, counted, function, whole
from carousel.engines.cpu.product import build, write_tile
from carousel.engines.cpu.target import target
from carousel.engines.cpu.tiling import vectors_per_panel
from carousel.engines.cpu.vectors import FLOAT32, I64, POINTER, Vectors

SECONDS = 2e-3  # of one timed piece: many calls
FEW_ROWS, ONE_ROW = 0.85, 1.5  # required: a share of the large product's rate; how much quicker than the prototype's tile


def aligned(count: int) -> np.ndarray:
    """Zeros, aligned to a cache line."""
    memory = np.zeros(count * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * 4].view(np.float32)


# --- code that only the benchmark needs -----------------------------------------------------------------------------------


def extra_module() -> ir.Module:
    """`repeat` calls a product many times; `narrow` is the prototype's one-row tile; `read` only reads."""
    here = target()
    module = ir.Module("benchmark")
    module.triple = here.triple
    arguments = [("rows", I64), ("vectors", I64), ("K", I64), ("a", POINTER), ("a_row", I64), ("w", POINTER), ("out", POINTER)]
    arguments += [("out_row", I64), ("accumulate", I64)]
    made = function(module, here, "repeat", [("times", I64), ("callee", I64), *arguments], inside=False)
    b = ir.IRBuilder(made.append_basic_block())
    kind = ir.FunctionType(ir.VoidType(), [kind for _, kind in arguments])
    callee = b.inttoptr(made.args[1], kind.as_pointer())
    with counted(b, made.args[0]):
        b.call(callee, list(made.args[2:]))
    b.ret_void()

    step, width = here.bits // 8, 4
    tile = write_tile(module, here, FLOAT32, rows=1, panels=[width], unroll=1, fetch=False)
    made = function(module, here, "narrow", arguments, inside=False)
    b = ir.IRBuilder(made.append_basic_block())
    _, vectors, K, a, a_row, w, out, out_row, accumulate = made.args
    with counted(b, vectors, width) as v:
        b.call(
            tile,
            [K, a, a_row, at(b, w, b.mul(b.mul(v, K), whole(step))), at(b, out, b.mul(v, whole(step))), out_row, accumulate],
        )
    b.ret_void()

    made = function(module, here, "read", arguments, inside=False)
    b = ir.IRBuilder(made.append_basic_block("entry"))
    _, vectors, K, _, _, w, out, _, _ = made.args
    vec = Vectors(b, here, FLOAT32)
    before, body, after = b.block, b.append_basic_block("body"), b.append_basic_block("after")
    b.branch(body)
    b.position_at_end(body)
    i, held = b.phi(I64), [b.phi(vec.whole) for _ in range(8)]
    i.add_incoming(whole(0), before)
    new = [b.xor(x, b.load(at(b, at(b, w, i), n * step), align=step, typ=vec.whole)) for n, x in enumerate(held)]
    following = b.add(i, whole(8 * step))
    i.add_incoming(following, body)
    for x, y in zip(held, new, strict=True):
        x.add_incoming(vec.iconst(0), before)
        x.add_incoming(y, body)
    b.cbranch(b.icmp_signed("<", following, b.mul(b.mul(vectors, K), whole(step))), body, after)
    b.position_at_end(after)
    total = new[0]
    for y in new[1:]:
        total = b.xor(total, y)
    b.store(total, out, align=step)
    b.ret_void()
    return module


class Kernels:
    """The product's machine code, and ways to call it."""

    def __init__(self) -> None:
        self.target = target()
        self.lanes = self.target.bits // FLOAT32.bits
        self.width = vectors_per_panel(self.target, FLOAT32)
        self.code = load(object_code(build(self.target, FLOAT32), self.target), self.target)
        self.extra = load(object_code(extra_module(), self.target), self.target)
        self.repeat = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 11)(self.extra.address("repeat"))
        self._pack = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(self.code.address("pack"))

    def pack(self, W: np.ndarray, gates: int, out: np.ndarray) -> None:
        """(gates * units, K) of any strides."""
        units, K = len(W) // gates, W.shape[1]
        starts = np.array([W[g * units :].ctypes.data for g in range(gates)], np.int64)
        self._pack(gates, units, K, starts.ctypes.data, *W.strides, 1 << 40, out.ctypes.data)

    @functools.cache  # noqa: B019 - one object, as long as the process
    def reading_rate(self, size: int) -> float:
        """Bytes in a second that one thread reads when it reads `size` bytes again and again: the best of several tries."""
        step = 8 * self.target.bits // 8
        count = max(1, size // step)
        memory, out, times = aligned(count * step // 4), aligned(step), max(1, int(4e6 / size))
        address = self.extra.address("read")
        arguments = (1, count * 8, 1, 0, 0, memory.ctypes.data, out.ctypes.data, 0, 0)  # vectors times K is what it reads
        taken = interleaved({"read": lambda: self.repeat(times, address, *arguments)}, 25)["read"]
        return times * count * step / min(taken)


class Operands:
    """A product's numbers."""

    def __init__(self, kernels: Kernels, M: int, K: int, N: int) -> None:
        rng = np.random.default_rng(0)
        self.kernels, self.M, self.K, self.N = kernels, M, K, N
        self.a, self.out = aligned(M * K).reshape(M, K), aligned(M * N).reshape(M, N)
        self.a[:] = rng.standard_normal((M, K))
        self.W = rng.standard_normal((N, K)).astype(np.float32)
        self.w, self.four = aligned(N * K), aligned(N * K)
        kernels.pack(self.W, 1, self.w)
        vectors = self.W.reshape(-1, 4, kernels.lanes, K)  # (panel, 4, lanes, K)
        self.four[:] = vectors.transpose(0, 3, 1, 2).ravel()
        self.operations = 2.0 * M * K * N

    def action(self, name: str, times: int) -> Callable[[], None]:
        """So many calls of a function."""
        where = self.kernels.code if name == "product" else self.kernels.extra
        w = self.four if name == "narrow" else self.w
        arguments = (self.M, self.N // self.kernels.lanes, self.K, self.a.ctypes.data, self.a.strides[0])
        rest = (w.ctypes.data, self.out.ctypes.data, self.out.strides[0], 0)
        address = where.address(name)

        def run() -> None:
            self.kernels.repeat(times, address, *arguments, *rest)  # addresses: `self` must live as long as they are used

        return run

    def check(self, name: str) -> None:
        """Stop where a result is wrong."""
        self.out[:] = np.nan
        self.action(name, 1)()
        want = self.a.astype(np.float64) @ self.W.T.astype(np.float64)
        error = np.abs(self.out - want).max() / np.abs(want).max()
        if not error < 1e-5:
            raise SystemExit(f"{name} (M {self.M}, K {self.K}, N {self.N}) is wrong: relative error {error}")


def share_of(gemm: Gemm, operations: float, times: list[float], beside: list[float]) -> Spread:
    """Of the large product's rate, round by round."""
    return ratios([operations / t for t in times], [gemm.operations / t for t in beside])


TEXTS = {
    "product": "packed product",
    "narrow": "  one panel of 4 vectors",
    "read": "  reading the weights",
    "linear": "  torch",
}


def many(count: int, action: Action) -> None:
    """The same again and again."""
    for _ in range(count):
        action()


def measure_product(bench: Bench) -> list[Row]:
    """The packed product for a few rows; for one row beside the prototype's tile and beside merely reading the weights."""
    kernels, gemm = bench.kernels, bench.gemm
    rows = []
    for K, N in ((24, 128),) if bench.quick else ((256, 1024), (640, 2560)):
        reading = kernels.reading_rate(K * N * 4)
        for M in (1, 8, 16, 20, 32):
            progress(f"packed product M {M}, K {K}, N {N}")
            operands = Operands(kernels, M, K, N)
            names = ["product", "narrow", "read"] if M == 1 else ["product"]
            for name in names:
                if name != "read":
                    operands.check(name)
            calls = max(1, round(SECONDS * gemm.rate * (0.3 if M == 1 else 1) / operands.operations))
            actions = {name: operands.action(name, calls) for name in names}
            if M > 1:
                x, W = torch.from_numpy(operands.a), torch.from_numpy(operands.W)
                actions["linear"] = functools.partial(many, calls, functools.partial(torch.nn.functional.linear, x, W))
            taken = interleaved({**actions, "gemm": gemm.run}, bench.repeats, dict.fromkeys(actions, 1))
            quicker = {name: ratios(taken[name], taken["product"]) for name in actions}
            for name in actions:
                what, each = f"{TEXTS[name]} M {M} K {K} N {N}", Spread.of([t / calls for t in taken[name]])
                share = share_of(gemm, operands.operations * calls, taken[name], taken["gemm"])
                limits = {"weights": K * N * 4 / reading / each.median}
                limits = {"operations": share.median, **limits} if name == "product" else {}
                more = {"product is quicker by": quicker[name], "share of gemm": share, "calls": calls}
                if name == "product" and M == 1:
                    rows.append(Row(what, each, quicker["narrow"], "x 4 vectors", ONE_ROW, limits=limits, more=more))
                elif name == "product":
                    rows.append(Row(what, each, share, "%", FEW_ROWS, limits=limits, more=more))
                elif name == "linear":
                    rows.append(Row(what, each, share, more=more))
                else:
                    rows.append(Row(what, each, more=more))
    return rows


def measure_pack(bench: Bench) -> list[Row]:
    """Packing the weights of four gates, as they are and transposed."""
    kernels, rows = bench.kernels, []
    for H in (24,) if bench.quick else (256, 640):
        W, out = np.random.default_rng(0).standard_normal((4 * H, H)).astype(np.float32), aligned(4 * (H + 16) * H)
        turned = np.ascontiguousarray(W.T)
        calls = 1 if bench.quick else max(1, round(1e7 / W.size))
        matrices = {"pack": W, "pack transposed": turned.T}
        actions = {
            name: functools.partial(many, calls, functools.partial(kernels.pack, matrix, 4, out))
            for name, matrix in matrices.items()
        }
        progress(f"packing 4 x ({H}, {H})")
        results = []
        for action in actions.values():
            action()
            results.append(out.copy())
        if not np.array_equal(results[0], results[1]):
            raise SystemExit("packing a matrix and packing the transpose of its transpose differ")
        taken = interleaved(actions, bench.repeats, dict.fromkeys(actions, 1))
        for name, times in taken.items():
            rate = Spread.of([2 * W.nbytes * calls / t / 1e9 for t in times])
            rows.append(Row(f"{name} 4 x ({H}, {H})", Spread.of([t / calls for t in times]), rate, "GB/s"))
    return rows


def measure(bench: Bench) -> list[Row]:
    """All rows of the packed product."""
    return [*measure_product(bench), *measure_pack(bench)]
