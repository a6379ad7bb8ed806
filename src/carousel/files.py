"""Writing files and directories so that a reader, or a crash, never meets half of one.

Every file is written under a temporary name, flushed to the disk and renamed, and the directory that names it is flushed
too. What the operating system refuses (a full disk, no permission, a failing device) is an
:class:`~carousel.errors.OutputError`; what stood there before then still stands.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carousel.errors import OutputError, explain

__all__ = [
    "flush_directory",
    "replace_directory",
    "replacing",
    "settle_directory",
    "sweep",
    "write_file",
    "write_flushed",
    "write_json",
    "writing",
]

# A temporary name: a point, the stem, twelve hexadecimal digits, the suffix.
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}(\.[^.]*)?")
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # network file systems: a directory has no flush there


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name beside `path`, and rename it at the end.

    Who reads `path` sees the old file or the whole new one. If the block raises, the old file stays and the
    temporary one is removed. The temporary name keeps the suffix, from which some writers tell the format.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        The temporary name to write to. No such file exists yet.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as temporary:
        ...         size = temporary.write_text("all of it")
        ...     Path(folder, "a.txt").read_text()
        'all of it'
    """
    final = Path(path)
    temporary = final.parent / f".{final.stem[:50]}.{secrets.token_hex(6)}{final.suffix}"
    try:
        with writing(final):
            yield temporary
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, final)
            flush_directory(final.parent)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all.

    Args:
        path: the file; its folder must exist.
        data: what it will hold.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write `content` as indented UTF-8 JSON, atomically. NaN and infinity, which JSON does not have, are refused.

    Args:
        path: the file to write; its folder must exist.
        content: dicts with str keys, lists, str, int, float, bool and None.

    Raises:
        OutputError: the file cannot be written.
        ValueError: `content` holds a NaN or an infinity.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    write_file(path, (text + "\n").encode())


def replace_directory(path: Path, fill: Callable[[Path], None], *, previous: Path | None = None) -> None:
    """Make the directory `path` anew: `fill` writes the files into an empty one, which then takes the place of the old.

    A directory cannot be renamed over another that has files, so the old one steps aside when the new one is complete.
    At every moment `path`, the new one beside it or the one that stepped aside is whole; :func:`settle_directory`
    finishes the exchange if the process dies between.

    Args:
        path: the directory; its parents are made.
        fill: writes the files into the directory it is given, with :func:`write_flushed`.
        previous: the name under which the old directory is kept; None does not keep it.

    Raises:
        OutputError: something cannot be written. `path` is then what it was, or complete and perhaps not yet flushed.
    """
    settle_directory(path, previous)
    new, aside = _neighbours(path, previous)
    with writing(path, "directory"):
        os.makedirs(new)
        try:
            fill(new)
            flush_directory(new)
            if aside.exists():  # the one before the one that is now to be kept
                shutil.rmtree(aside)
            if path.exists():
                os.rename(path, aside)
            try:
                os.rename(new, path)
            except OSError:
                if aside.exists():
                    os.rename(aside, path)
                raise
        except BaseException:
            if path.exists() or not aside.exists():  # else the new one is complete, and all that is left in its place
                shutil.rmtree(new, ignore_errors=True)
            raise
        flush_directory(path.parent)
    if previous is None:
        shutil.rmtree(aside, ignore_errors=True)


def settle_directory(path: Path, previous: Path | None = None) -> None:
    """Finish or undo an exchange that was cut short. Afterwards `path` is complete, or does not exist.

    Args:
        path: the directory that :func:`replace_directory` writes.
        previous: as given there. It is never taken for `path`: that is for who can tell whether it is whole.

    Raises:
        OutputError: the directory may not be changed.
    """
    new, aside = _neighbours(path, previous)
    with writing(path, "directory"):
        if not path.exists() and aside.exists() and (new.exists() or previous is None):
            # The old one steps aside only when the new one is complete.
            os.rename(new if new.exists() else aside, path)
            flush_directory(path.parent)
        for leftover in (new, aside) if previous is None else (new,):
            if leftover.exists():
                shutil.rmtree(leftover)


def sweep(directory: Path) -> None:
    """Remove the temporary files that a killed process left in a directory.

    Args:
        directory: one that nobody else writes to now.
    """
    with suppress(OSError):
        for path in directory.iterdir():
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                os.unlink(path)


def write_flushed(path: Path, data: bytes) -> None:
    """Write `data` under its final name and return when the disk has it: for a file in a directory that nobody reads yet."""
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
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(handle)


def _neighbours(path: Path, previous: Path | None) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.new"), previous or path.with_name(f".{path.name}.old")


@contextmanager
def writing(path: Path, kind: str = "file") -> Iterator[None]:
    """Turn what the operating system refuses inside the block into an error that says what to do.

    Args:
        path: what is written.
        kind: "file" or "directory".

    Raises:
        OutputError: in the place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        message = explain(f"the {kind} cannot be written.", got=error.strerror or str(error), advice=_advice(error.errno))
        raise OutputError(message, path=path) from error


def _advice(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room on the disk, or write to another one"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a place that you may write to"
    if number == errno.EIO:
        return "the disk may be failing: look at it, and write to another one"
    return "check that the folder exists, may be written to, and has room left"
