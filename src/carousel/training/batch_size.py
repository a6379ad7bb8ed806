"""Finds the largest batch that fits into memory: :func:`find_batch_size`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from carousel.errors import ConfigError, TrainingError, explain

__all__ = ["available_memory", "find_batch_size", "held_memory", "peak_memory"]

SHARE = 0.5  # of the memory that is free, where no limit is given
SECONDS_BETWEEN_LOOKS = 0.001


def find_batch_size(
    try_size: Callable[[int], Any],
    limit_bytes: int | None = None,
    *,
    device: str = "cpu",
    smallest: int = 1,
    largest: int = 4096,
) -> int:
    """Find the largest power of two times `smallest` whose training step stays within a memory limit.

    The size is doubled until a step needs more than the limit allows, or does not fit at all. A step's need is its peak
    over what the process held before the search, which is also where the limit counts from.

    Args:
        try_size: makes one training step, forward and backward, with a batch of so many sequences. Give it the longest
            ones, as a limit must hold for every batch. It may leave nothing behind but gradients.
        limit_bytes: bytes that a step may need; None for half of the memory that is free now.
        device: where it computes: cpu, cuda or mps. On a CPU the peak is that of the whole process, as the operating
            system counts it where it does (Linux), else sampled.
        smallest: the size to begin with; it must fit.
        largest: never more than this.

    Returns:
        The size.

    Raises:
        ConfigError: a size or the limit is not possible.
        TrainingError: not even `smallest` fits.

    Example:
        >>> import numpy as np
        >>> find_batch_size(lambda size: np.ones((size, 2**20)), limit_bytes=100 * 2**20)  # a row takes 8 MiB
        8
    """
    for name, number in (("smallest", smallest), ("largest", largest), ("limit_bytes", limit_bytes)):
        if number is not None and number < 1:
            raise ConfigError(explain(f"find_batch_size: {name} must be positive.", got=str(number)))
    limit = int(SHARE * available_memory(device)) if limit_bytes is None else limit_bytes
    found = before = need = 0
    size = smallest
    # The first call also loads libraries and compiles kernels, which no later one pays for.
    try_size(smallest)
    # Not anew for each size: freed memory that the allocator keeps would count for nothing.
    held = held_memory(device)
    while size <= largest:
        try:
            before, need = need, peak_memory(partial(try_size, size), device=device, held=held)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            break
        if need > limit:
            break
        found, size = size, 2 * size
        if before and need + 2 * (need - before) > 1.5 * limit:
            break  # it would not fit by far: do not bring the machine down to see it
    if not found:
        what = f"a batch of {smallest} does not fit into the memory limit."
        advice = "raise the limit, cut long sequences, or make the model smaller"
        raise TrainingError(
            explain(what, got=f"{need / 2**20:.0f} MiB for a step", expected=f"at most {limit / 2**20:.0f} MiB", advice=advice)
        )
    return found


def held_memory(device: str = "cpu") -> int:
    """Bytes that this process holds now.

    Args:
        device: whose memory: cpu, cuda or mps.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.memory_allocated())
    return _resident()


def peak_memory(run: Callable[[], Any], *, device: str = "cpu", held: int | None = None) -> int:
    """Bytes that this process holds at most during a call, over what it held before.

    Args:
        run: the call; what it returns is let go.
        device: whose memory: cpu, cuda or mps.
        held: what it held before; None for what it holds now.
    """
    before = held_memory(device) if held is None else held
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    if _reset_peak():
        run()
        return max(0, _status("VmHWM") - before)
    peak = [_resident()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
        peak[0] = max(peak[0], _resident())
    finally:
        done.set()
        watcher.join()
    return max(0, peak[0] - before)


def available_memory(device: str = "cpu") -> int:
    """Bytes that can still be had: of the machine, or of the container this process is in.

    Args:
        device: whose memory: cpu, cuda or mps.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    free = _number_after(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
        pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 2**20
        free = pages * (os.sysconf("SC_PAGE_SIZE") if "SC_PAGE_SIZE" in names else 4096) // 2
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no container, or "max"
            continue
    return max(free, 0)


def _reset_peak() -> bool:
    """Let the operating system's peak begin anew; return whether it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident() -> int:
    found = _number_after(Path("/proc/self/status"), "VmRSS")
    if found is not None:
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the largest so far: the next best thing
    return peak if os.uname().sysname == "Darwin" else 1024 * peak


def _status(name: str) -> int:
    return _number_after(Path("/proc/self/status"), name) or 0


def _number_after(path: Path, name: str) -> int | None:
    """Bytes that a line `name: N kB` of a file of the system states."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return None
