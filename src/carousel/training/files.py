"""Writing files and directories so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["replace_directory", "settle_directory", "write_file"]


def write_file(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk and rename it to `path`."""
    new = path.with_name(f".{path.name}.new")
    write_flushed(new, data)
    os.replace(new, path)
    flush_directory(path.parent)


def replace_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the directory `path` anew: `fill` writes the files into an empty one, which then takes the place of the old.

    A directory cannot be renamed over another that has files, so the old one steps aside for a moment:
    :func:`settle_directory` finishes the exchange if the process dies right there.
    """
    settle_directory(path)
    new, old = _neighbours(path)
    new.mkdir(parents=True)
    fill(new)
    flush_directory(new)
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    flush_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def settle_directory(path: Path) -> None:
    """Finish or undo an exchange that was cut short. Afterwards `path` is complete, or does not exist."""
    new, old = _neighbours(path)
    if not path.exists() and old.exists():  # the old one steps aside only when the new one is complete
        os.rename(new if new.exists() else old, path)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def write_flushed(path: Path, data: bytes) -> None:
    """Write `data` and return when the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Make renames in a directory durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _neighbours(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
