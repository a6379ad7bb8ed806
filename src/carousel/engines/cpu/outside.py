"""Products of whole matrices, by whatever does them fastest here: our own kernels, torch, or oneDNN behind torch.

Which one is fastest differs between CPUs: MKL holds some to half their speed, and a library's way with a bias may be slow. So
the first large product of a class of sizes is timed with each, and the choice is kept in ``products.json`` beside the compiled
code. Ours is taken unless another is clearly faster, since its bits depend neither on the number of threads nor on the other
rows. A choice changes results by rounding only: between machines, and where a cache is lost, the last bits may differ.
Inside :func:`same_bits`, as in training, nothing is chosen: the result is then the same for any number of threads, whatever
was measured before.

Where float32 products may be rounded (``torch.set_float32_matmul_precision("medium")``) and the CPU multiplies bfloat16 in
tiles (AMX), ours do all of them (`tiles`), five to eight times as fast: inputs rounded to 8 bits, sums in float32.

All tensors are on the CPU, of one floating type, without gradient: this is what stands under autograd, not on it.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carousel.engines.cpu import cache, own, threads
from carousel.engines.cpu.target import target

#: Below so many floating-point operations torch's small overhead counts more than any rate.
LARGE = 2e6
# Ours is left only for what is faster by this much.
_CLEARLY = 1.2
_REPEATS = 3

FILE = "products.json"
_FORMAT = 1


def _rows(x: Tensor) -> Tensor:
    """Each row in one piece."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


# --- the others -------------------------------------------------------------------------------------------------------


def _torch_linear(x: Tensor, w: Tensor, b: Tensor | None, out: Tensor) -> Tensor:
    return torch.mm(x, w.mT, out=out) if b is None else torch.addmm(b, x, w.mT, out=out)


def _onednn_linear(x: Tensor, w: Tensor, b: Tensor | None, out: Tensor) -> Tensor:
    return out.copy_(torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], ""))


def _torch_outer(g: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
    if total is not None:
        torch.sum(g, 0, out=total)
    return g.mT @ x


@functools.cache
def _has_onednn() -> bool:
    """Whether torch's private operator is there and does what we think: it may change any day."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x, w, b = (torch.arange(float(n)).view(shape) for n, shape in ((6, (2, 3)), (12, (4, 3)), (4, (4,))))
    try:
        found = [torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "") for bias in (b, None)]
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    wanted = [torch.nn.functional.linear(x, w, bias) for bias in (b, None)]
    return all(f.shape == y.shape and bool(torch.allclose(f, y)) for f, y in zip(found, wanted, strict=True))


_LINEAR: dict[str, Callable[..., Tensor]] = {"own": own.linear, "torch": _torch_linear, "onednn": _onednn_linear}
_OUTER: dict[str, Callable[..., Tensor]] = {"own": own.outer, "torch": _torch_outer}


# --- what callers use -------------------------------------------------------------------------------------------------


def linear(x: Tensor, w: Tensor, b: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """``x w^T + b``.

    Args:
        x: (rows, K).
        w: (N, K), of any strides: for the gradient of the input, hand in the gradient and ``w.mT``.
        b: (N,), or None.
        out: (rows, N), each row in one piece: where the result goes; new memory if None.

    Returns:
        (rows, N).
    """
    rows, K = x.shape
    units = w.shape[0]
    operations = 2.0 * rows * K * units
    if operations <= LARGE:
        return _torch_linear(x, w, b, out) if out is not None else torch.nn.functional.linear(x, w, b)
    x, b = _rows(x), None if b is None else b.contiguous()
    out = x.new_empty((rows, units)) if out is None else out
    name = f"linear{'' if b is None else ' bias'}{'' if w.stride(1) == 1 else ' turned'}"
    if x.dtype is torch.float32 and rounded():
        return own.linear(x, w, b, out, rounded=True)
    among = _LINEAR
    if x.dtype != torch.float32 or not _has_onednn():
        among = {n: f for n, f in _LINEAR.items() if n != "onednn"}
    return _chosen(name, (rows, K, units), among, x, w, b, out)


def outer(g: Tensor, x: Tensor, *, total: Tensor | None = None) -> Tensor:
    """``g^T x``, the gradient of a weight; on the way, the sum of the rows of `g`, the gradient of a bias.

    Args:
        g: (rows, N).
        x: (rows, I).
        total: (N,), where the sum goes; not computed if None.

    Returns:
        (N, I).
    """
    rows, units = g.shape
    if 2.0 * rows * units * x.shape[1] <= LARGE:
        return _torch_outer(g, x, total)
    if g.dtype is torch.float32 and rounded():
        return own.rounded_outer(_rows(g), _rows(x), total)
    name = f"outer{'' if total is None else ' total'}"
    return _chosen(name, (rows, units, x.shape[1]), _OUTER, _rows(g), _rows(x), total)


def rounded() -> bool:
    """Whether large float32 products round what they multiply to bfloat16: torch was told it may, and the CPU has tiles."""
    return torch.get_float32_matmul_precision() == "medium" and own.has_tiles()


def rounded_in_loops() -> bool:
    """Whether the products of the loops over time are rounded as well."""
    return _loops and rounded()


@contextmanager
def rounded_loops() -> Iterator[None]:
    """Round the products of the loops over time, too, wherever float32 products may be rounded.

    States pass through them again and again: a layer is two to three times as fast, and a language model learned 1 % worse.
    """
    global _loops
    before, _loops = _loops, True
    try:
        yield
    finally:
        _loops = before


@contextmanager
def same_bits() -> Iterator[None]:
    """Compute inside with the same bits for any number of threads, and in every process on this kind of machine.

    Large products are our own. Torch gets one thread, since with several the bits of
    its sums, and even of its exponential functions, depend on where it divides the work; our kernels keep as many threads as
    torch had.
    """
    global _fixed
    before, _fixed = _fixed, True
    try:
        with threads.apart_from_torch():
            yield
    finally:
        _fixed = before


def fixed() -> bool:
    """Whether we are inside :func:`same_bits`."""
    return _fixed


_fixed = False
_loops = False


# --- the choice -------------------------------------------------------------------------------------------------------

_Class = tuple[str, torch.dtype, int, int, int, int]
_choices: dict[str, str] | None = None
_known: dict[_Class, Callable[..., Tensor]] = {}
_process = os.getpid()


def _chosen(name: str, shape: tuple[int, int, int], among: dict[str, Callable[..., Tensor]], *args: Any) -> Tensor:
    like: Tensor = args[0]
    if _fixed:
        return among["own"](*args)
    rows, inner, units = shape
    # Sizes between two powers of two are one class.
    found = (name, like.dtype, threads.default_threads(), rows.bit_length(), inner.bit_length(), units.bit_length())
    function = _known.get(found)
    if function is None:
        function = _choose(found, among, args)
    return function(*args)


def _choose(found: _Class, among: dict[str, Callable[..., Tensor]], args: tuple[Any, ...]) -> Callable[..., Tensor]:
    """From memory, from the file, or by trying."""
    global _choices
    if _choices is None:
        _choices = _read()
    name, dtype, count, *sizes = found
    key = f"{name} {str(dtype).removeprefix('torch.')} {'x'.join(str(1 << n) for n in sizes)} threads {count}"
    choice = _choices.get(key)
    if choice not in among:
        if os.getpid() != _process:  # after a fork other libraries may wait for threads that are gone
            return among["own"]
        choice = _choices[key] = _fastest(among, args)
        _write(_choices)
    _known[found] = among[choice]
    return among[choice]


def _fastest(among: dict[str, Callable[..., Tensor]], args: tuple[Any, ...]) -> str:
    took = dict.fromkeys(among, float("inf"))
    for turn in range(_REPEATS + 1):  # the first is to warm up
        for name, function in among.items():
            begin = time.perf_counter()
            function(*args)
            if turn:
                took[name] = min(took[name], time.perf_counter() - begin)
    best = min(took, key=lambda name: took[name])
    return best if took[best] * _CLEARLY < took["own"] else "own"


def choices() -> dict[str, str]:
    """What was chosen so far, by class of product: for reading."""
    return dict(_choices if _choices is not None else _read())


def forget() -> None:
    """Read the file again before the next choice."""
    global _choices
    _choices = None
    _known.clear()


def _machine() -> str:
    cpu = target()
    return f"{cpu.triple} {cpu.cpu} {cpu.bits} torch {torch.__version__}"


def _path() -> Path | None:
    place = cache.folder()
    return None if place is None else place / FILE


def _whole_file(path: Path) -> dict[str, dict[str, str]]:
    """All machines' choices; nothing of a file that is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            return {}
        known = {*_LINEAR, *_OUTER}
        return {
            str(machine): {str(key): str(name) for key, name in found.items() if name in known}
            for machine, found in content["machines"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _read() -> dict[str, str]:
    path = _path()
    return {} if path is None else _whole_file(path).get(_machine(), {})


def _write(found: dict[str, str]) -> None:
    path = _path()
    if path is None:
        return
    machines = _whole_file(path)
    machines[_machine()] = {**machines.get(_machine(), {}), **found}
    unfinished: str | None = None
    try:
        handle, unfinished = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "machines": machines}, file, indent=1, sort_keys=True)
        os.replace(unfinished, path)
    except OSError:
        if unfinished is not None:
            with suppress(OSError):
                os.unlink(unfinished)
