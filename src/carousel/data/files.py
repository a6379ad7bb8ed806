"""Text and JSON files: opened with clear errors. How they are written is in :mod:`carousel.files`."""

from __future__ import annotations

import codecs
import difflib
import io
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any, cast

from carousel.errors import DataError, explain
from carousel.files import replacing, write_json

__all__ = ["STANDARD_INPUT", "StrPath", "numbered_lines", "read_json", "read_text", "replacing", "shown_path", "write_json"]

StrPath = str | os.PathLike[str]

STANDARD_INPUT = "-"
MAX_LINE_CHARACTERS = 1 << 26
MAX_DECOMPRESSED_CHARACTERS = 1 << 32  # a gzip file of 4 MB can hold 4 GB of zeros
UNSUSPECTED_CHARACTERS = 1 << 26  # what any compressed file may hold, and if it is more,
MAX_EXPANSION = 100  # characters for each compressed byte: text has 3 to 10

_JOINED = 4096  # short lines cost more memory than their text: they are put together now and then

_GZIP_MAGIC = b"\x1f\x8b"
_WRONG = re.compile("[\0\udc80-\udcff]")
_UNDECODED = re.compile("[\udc80-\udcff]")  # what the error handler "surrogateescape" makes of a byte that is not UTF-8


def shown_path(path: StrPath) -> str:
    """The name of a file as messages show it."""
    return "standard input" if path == STANDARD_INPUT else str(os.fspath(path))


def numbered_lines(
    path: StrPath, *, problems: Callable[[DataError], None] | None = None
) -> Generator[tuple[int, str], None, None]:
    r"""Read a UTF-8 text file line by line.

    A file that starts as gzip does is decompressed, whatever its name says. A byte order mark is dropped;
    the line ends of Unix, Windows and the old Macintosh are understood.

    Args:
        path: the file; ``-`` is standard input.
        problems: who is told of bytes that are not UTF-8 and of NUL bytes, line by line; they become U+FFFD then. None:
            they are raised.

    Yields:
        The number of the line, counted from 1, and its text without the line end.

    Raises:
        DataError: the file is missing, a directory, unreadable, damaged, not UTF-8, or holds NUL bytes; a line is
            longer than 64 Mi characters; a gzip file holds more than 64 Mi characters and more than 100 for each of its
            bytes, or more than 4 Gi.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     size = Path(folder, "a.txt").write_bytes(b"one\r\ntwo")
        ...     list(numbered_lines(Path(folder, "a.txt")))
        [(1, 'one'), (2, 'two')]
    """
    shown = shown_path(path)
    number = 0
    try:
        with _opened(path) as (stream, limit):
            characters = 0
            while line := stream.readline(MAX_LINE_CHARACTERS + 1):
                number += 1
                characters += len(line)
                _check_size(shown, number, len(line), characters, limit)
                if (not line.isascii() or "\0" in line) and (error := _wrong_characters(shown, number, line)):
                    if problems is None:
                        raise error
                    problems(error)
                    line = _WRONG.sub("\ufffd", line)
                yield number, line.removesuffix("\n")
    except (EOFError, zlib.error) as error:
        raise _damaged(shown, number, error) from error
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error


def read_json(path: StrPath, *, max_characters: int | None = None) -> Any:
    """Read one JSON value from a UTF-8 file.

    Args:
        path: the file.
        max_characters: what the file may hold; None: no limit of its own. A value needs up to 30 times its file in memory.

    Returns:
        The value. Nothing is known about its shape: check it.

    Raises:
        DataError: the file cannot be read, is too long or is not JSON.
    """
    return parse_json(path, read_text(path, max_characters=max_characters))


def parse_json(path: StrPath, text: str) -> Any:
    """The JSON value that a file's text is.

    Raises:
        DataError: it is not JSON; the message names the file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = explain("the file is not valid JSON.", got=f"{error.msg}, column {error.colno}")
        raise DataError(message, path=shown_path(path), line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise DataError(explain("the file is not valid JSON.", got=str(error)), path=shown_path(path)) from error


def read_text(path: StrPath, *, max_characters: int | None = None) -> str:
    """All of a UTF-8 file, with line ends as Unix has them.

    Args:
        path: the file.
        max_characters: what it may hold; None: no limit of its own.

    Raises:
        DataError: the file cannot be read or is too long.
    """
    parts: list[str] = []
    lines: list[str] = []
    characters = 0
    for number, line in numbered_lines(path):
        characters += len(line) + 1
        if max_characters is not None and characters > max_characters:
            message = explain("the file is too long for what it should be.", got=f"more than {max_characters:,} characters")
            raise DataError(message, path=shown_path(path), line=number)
        lines.append(line)
        if len(lines) == _JOINED:
            parts.append("\n".join(lines))
            lines = []
    return "\n".join([*parts, "\n".join(lines)] if lines else parts)


@contextmanager
def _opened(path: StrPath) -> Iterator[tuple[io.TextIOWrapper, float]]:
    """The file as text, and how many characters it may hold; closed at the end, but for standard input."""
    if path == STANDARD_INPUT:
        source = _standard_input()
    else:
        source = Path(path).open("rb")  # noqa: SIM115 - closed below, with what wraps it
    # Standard input may be any binary stream: a buffer of our own lets the first bytes be seen without taking them.
    buffer = io.BufferedReader(cast(io.RawIOBase, source))
    compressed = False
    try:
        compressed = buffer.peek(2)[:2] == _GZIP_MAGIC
        binary = cast(IO[bytes], GzipFile(fileobj=buffer) if compressed else buffer)
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline=None)
        try:
            yield text, _most_characters(path) if compressed else math.inf
        finally:
            text.detach()
            if compressed:
                binary.close()
    finally:
        buffer.detach()
        if path != STANDARD_INPUT:
            source.close()


def _most_characters(path: StrPath) -> int:
    """What a compressed file may hold. A small one that becomes huge was made to fill the memory."""
    if path == STANDARD_INPUT:
        return MAX_DECOMPRESSED_CHARACTERS  # its size is not known beforehand
    expanded = max(UNSUSPECTED_CHARACTERS, MAX_EXPANSION * Path(path).stat().st_size)
    return min(MAX_DECOMPRESSED_CHARACTERS, expanded)


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise DataError(explain("there is no standard input.", advice="name a file"), path=shown_path(STANDARD_INPUT))
    if hasattr(sys.stdin, "buffer"):
        return sys.stdin.buffer
    return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))  # a notebook's or a test's text stream


def _check_size(shown: str, number: int, line_characters: int, characters: int, limit: float) -> None:
    if line_characters > MAX_LINE_CHARACTERS:
        got = f"more than {MAX_LINE_CHARACTERS:,} characters"
        advice = "check that this is a text file, one record a line"
        raise DataError(explain("the line is too long.", got=got, advice=advice), path=shown, line=number)
    if characters > limit:
        got = f"more than {limit:,} characters"
        advice = "if it really is that large, decompress the file first"
        message = explain("the compressed file holds too much text.", got=got, advice=advice)
        raise DataError(message, path=shown, line=number)


def _wrong_characters(shown: str, number: int, line: str) -> DataError | None:
    if found := _UNDECODED.search(line):
        value = ord(found.group()) - 0xDC00
        place = len(line[: found.start()].encode("utf-8", "surrogateescape")) + 1
        wide = number == 1 and place == 1 and bytes([value]) in (codecs.BOM_UTF16_LE[:1], codecs.BOM_UTF16_BE[:1])
        got = f"byte 0x{value:02x} at byte {place} of the line" + (": this looks like UTF-16" if wide else "")
        advice = f"convert the file: iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8 OLD > NEW"
        return DataError(explain("the text is not UTF-8.", got=got, advice=advice), path=shown, line=number)
    if "\0" in line:
        got = f"a NUL byte at character {line.index(chr(0)) + 1} of the line"
        advice = "check that this is a text file; UTF-16 is converted by: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        return DataError(explain("the file is not plain text.", got=got, advice=advice), path=shown, line=number)
    return None


def _damaged(shown: str, number: int, error: Exception) -> DataError:
    advice = "copy or download the file again; gzip -t checks it"
    return DataError(explain("the gzip file is damaged.", got=str(error), advice=advice), path=shown, line=number + 1)


def _cannot_read(path: StrPath, error: OSError | ValueError) -> DataError:
    shown = shown_path(path)
    if isinstance(error, FileNotFoundError):
        near = _nearest_file(Path(path))
        hint = f" Did you mean '{near}'?" if near else ""
        return DataError(explain("there is no such file." + hint, advice="check the path"), path=shown)
    if isinstance(error, IsADirectoryError):
        return DataError(explain("this is a directory, not a file.", advice="name a file in it"), path=shown)
    if isinstance(error, PermissionError):
        advice = "give yourself read access to the file"
        return DataError(explain("the file may not be read.", got="permission denied", advice=advice), path=shown)
    return DataError(explain("the file cannot be read.", got=str(error), advice="check the path and the file"), path=shown)


def _nearest_file(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1)
    return str(path.with_name(near[0])) if near else None
