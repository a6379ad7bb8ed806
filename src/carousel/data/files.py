"""Text and JSON files: opened with clear errors, written so that no half-written file is ever seen."""

from __future__ import annotations

import codecs
import difflib
import io
import json
import os
import re
import secrets
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any, cast

from carousel.errors import DataError, explain

__all__ = ["STANDARD_INPUT", "StrPath", "numbered_lines", "read_json", "replacing", "shown_path", "write_json"]

StrPath = str | os.PathLike[str]

STANDARD_INPUT = "-"
MAX_LINE_CHARACTERS = 1 << 26
MAX_DECOMPRESSED_CHARACTERS = 1 << 32  # a gzip file of 4 MB can hold 4 GB of zeros

_GZIP_MAGIC = b"\x1f\x8b"
_UNDECODED = re.compile("[\udc80-\udcff]")  # what the error handler "surrogateescape" makes of a byte that is not UTF-8


def shown_path(path: StrPath) -> str:
    """The name of a file as messages show it."""
    return "standard input" if path == STANDARD_INPUT else str(os.fspath(path))


def numbered_lines(path: StrPath) -> Generator[tuple[int, str], None, None]:
    r"""Read a UTF-8 text file line by line.

    A file that starts as gzip does is decompressed, whatever its name says. A byte order mark is dropped;
    the line ends of Unix, Windows and the old Macintosh are understood.

    Args:
        path: the file; ``-`` is standard input.

    Yields:
        The number of the line, counted from 1, and its text without the line end.

    Raises:
        DataError: the file is missing, a directory, unreadable, damaged, not UTF-8, or holds NUL bytes; a line is
            longer than 64 Mi characters; a gzip file holds more than 4 Gi characters.

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
        with _opened(path) as (stream, compressed):
            characters = 0
            while line := stream.readline(MAX_LINE_CHARACTERS + 1):
                number += 1
                characters += len(line)
                _check_size(shown, number, len(line), characters if compressed else 0)
                if not line.isascii() or "\0" in line:
                    _check_characters(shown, number, line)
                yield number, line.removesuffix("\n")
    except (EOFError, zlib.error) as error:
        raise _damaged(shown, number, error) from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _cannot_read(path, error) from error


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Write a file under a temporary name beside `path`, and rename it at the end.

    Who reads `path` sees the old file or the whole new one. If the block raises, the old file stays and the
    temporary one is removed. The temporary name keeps the suffix, from which some writers tell the format.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        The temporary name to write to. No such file exists yet.

    Raises:
        DataError: the file cannot be written.

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
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(final)
    except OSError as error:
        advice = "check that the folder exists, may be written to, and has room left"
        raise DataError(explain("the file cannot be written.", got=str(error), advice=advice), path=final) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: StrPath, content: object) -> None:
    """Write `content` as indented UTF-8 JSON, atomically. NaN and infinity, which JSON does not have, are refused.

    Args:
        path: the file to write; its folder must exist.
        content: dicts with str keys, lists, str, int, float, bool and None.

    Raises:
        DataError: the file cannot be written.
        ValueError: `content` holds a NaN or an infinity.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: StrPath) -> Any:
    """Read one JSON value from a UTF-8 file.

    Args:
        path: the file.

    Returns:
        The value. Nothing is known about its shape: check it.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    text = "\n".join(line for _, line in numbered_lines(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = explain("the file is not valid JSON.", got=f"{error.msg}, column {error.colno}")
        raise DataError(message, path=shown_path(path), line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise DataError(explain("the file is not valid JSON.", got=str(error)), path=shown_path(path)) from error


@contextmanager
def _opened(path: StrPath) -> Iterator[tuple[io.TextIOWrapper, bool]]:
    """The file as text and whether it was compressed; closed at the end, but for standard input."""
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
            yield text, compressed
        finally:
            text.detach()
            if compressed:
                binary.close()
    finally:
        buffer.detach()
        if path != STANDARD_INPUT:
            source.close()


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise DataError(explain("there is no standard input.", advice="name a file"), path=shown_path(STANDARD_INPUT))
    if hasattr(sys.stdin, "buffer"):
        return sys.stdin.buffer
    return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))  # a notebook's or a test's text stream


def _check_size(shown: str, number: int, line_characters: int, characters: int) -> None:
    if line_characters > MAX_LINE_CHARACTERS:
        got = f"more than {MAX_LINE_CHARACTERS:,} characters"
        advice = "check that this is a text file, one record a line"
        raise DataError(explain("the line is too long.", got=got, advice=advice), path=shown, line=number)
    if characters > MAX_DECOMPRESSED_CHARACTERS:
        got = f"more than {MAX_DECOMPRESSED_CHARACTERS:,} characters"
        advice = "if it really is that large, decompress the file first"
        message = explain("the compressed file holds too much text.", got=got, advice=advice)
        raise DataError(message, path=shown, line=number)


def _check_characters(shown: str, number: int, line: str) -> None:
    if found := _UNDECODED.search(line):
        value = ord(found.group()) - 0xDC00
        place = len(line[: found.start()].encode("utf-8", "surrogateescape")) + 1
        wide = number == 1 and place == 1 and bytes([value]) in (codecs.BOM_UTF16_LE[:1], codecs.BOM_UTF16_BE[:1])
        got = f"byte 0x{value:02x} at byte {place} of the line" + (": this looks like UTF-16" if wide else "")
        advice = f"convert the file: iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8 OLD > NEW"
        raise DataError(explain("the text is not UTF-8.", got=got, advice=advice), path=shown, line=number)
    if "\0" in line:
        got = f"a NUL byte at character {line.index(chr(0)) + 1} of the line"
        advice = "check that this is a text file; UTF-16 is converted by: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        raise DataError(explain("the file is not plain text.", got=got, advice=advice), path=shown, line=number)


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
