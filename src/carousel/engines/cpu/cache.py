"""The disk cache of compiled code.

One file holds one module's object code behind a header. Its name is the hash of all that the code depends on, so a
file is never out of date, only unused. Whatever is wrong with the cache (no home, a full disk, a damaged file), code is
compiled as if there were none, and the log has one line about it.

The folder is ``CAROUSEL_CACHE``, else ``carousel`` in the user's cache folder. Since its contents are run, it must
belong to this user, and nobody else may write to it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

import carousel
from carousel.engines.cpu.target import Target

MAX_FILES = 512
MAX_BYTES = 200 * 2**20

_SUFFIX, _UNFINISHED = ".code", ".code-tmp"
_DAY = 24 * 3600.0

# Magic, version of the format, digest of the key, length and checksum of what follows.
_HEADER = struct.Struct("<8sI32sQ32s")
_MAGIC, _FORMAT = b"carousel", 1

_log = logging.getLogger("carousel")
_told = False


@dataclass(frozen=True)
class Info:
    """What the cache holds.

    Attributes:
        path: its folder; None where there is no cache.
        files: how many modules are stored.
        bytes: how much they take.
    """

    path: Path | None
    files: int
    bytes: int


# --- names ------------------------------------------------------------------------------------------------------------


def digest(key: Sequence[str], target: Target) -> str:
    """The hash of all that compiled code depends on.

    Args:
        key: what the module depends on: the graph, the type of numbers, the variant.
        target: the CPU.

    Returns:
        64 hexadecimal digits, which name the file.
    """
    made_by = (carousel.__version__, _sources(), llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)))
    cpu = (target.triple, target.cpu, target.features, str(target.bits), str(target.fma))
    total = hashlib.blake2b(digest_size=32)
    for part in (*made_by, *cpu, *key):
        text = part.encode("utf-8")
        total.update(len(text).to_bytes(8, "little") + text)  # the length first: ("ab", "c") is not ("a", "bc")
    return total.hexdigest()


@functools.cache
def _sources() -> str:
    """The hash of the files that decide what code is written: a changed generator never finds the old one's code (1 ms).

    Empty where a package comes without its sources; then its version must do.
    """
    package = Path(carousel.__file__).parent
    total = hashlib.blake2b(digest_size=32)
    for path in sorted([*(package / "engines" / "cpu").rglob("*.py"), *(package / "graph").rglob("*.py")]):
        with suppress(OSError):
            total.update(path.relative_to(package).as_posix().encode() + hashlib.blake2b(path.read_bytes()).digest())
    return total.hexdigest()


# --- the folder -------------------------------------------------------------------------------------------------------


def _tell(message: str, *args: object) -> None:
    """One line in the log, once per process: the cache is a help, not worth a warning at each step."""
    global _told
    if not _told:
        _told = True
        _log.warning(message, *args)


def _wanted() -> Path | None:
    """Where the cache should be."""
    asked = os.environ.get("CAROUSEL_CACHE")
    if asked is not None:
        return None if asked in ("", "off") else Path(os.path.abspath(os.path.expanduser(asked)))
    places = {"win32": os.environ.get("LOCALAPPDATA")}
    base = places.get(sys.platform, None if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME"))
    if base and os.path.isabs(base):  # the standard says to ignore a relative one
        return Path(base) / "carousel"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        _tell("no home folder is known, so compiled code is not kept; CAROUSEL_CACHE can name another folder")
        return None
    below = {"win32": ("AppData", "Local"), "darwin": ("Library", "Caches")}.get(sys.platform, (".cache",))
    return home.joinpath(*below, "carousel")


def folder() -> Path | None:
    """The cache's folder, made where it is missing; None where there is none that can be used."""
    path = _wanted()
    if path is None:
        return None
    try:
        try:
            found = path.stat()
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.stat()
        if not path.is_dir():
            raise NotADirectoryError(f"'{path}' is not a folder")
    except OSError as error:
        _tell("compiled code is not kept: %s", error)
        return None
    if os.name != "nt" and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        fault = "belongs to another user" if found.st_uid != os.geteuid() else "can be written by other users"
        _tell(
            "compiled code is not kept: the folder '%s' %s. Make it yours alone (chmod 700), or set CAROUSEL_CACHE", path, fault
        )
        return None
    return path


# --- files ------------------------------------------------------------------------------------------------------------


def read(name: str) -> bytes | None:
    """The object code stored under a digest; None where there is none, or none that can be trusted.

    Args:
        name: as :func:`digest` gave it.
    """
    place = folder()
    if place is None:
        return None
    path = place / (name + _SUFFIX)
    try:
        data = path.read_bytes()
        used = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        _tell("compiled code cannot be read and is compiled again: %s", error)
        return None
    code = data[_HEADER.size :]
    if data[: _HEADER.size] != _header(name, code):
        _tell("'%s' is damaged; it is compiled again", path)
        return None
    if abs(time.time() - used) > _DAY:  # so the files used least recently can be told
        with suppress(OSError):
            os.utime(path)
    return code


def write(name: str, code: bytes) -> None:
    """Store object code under a digest, and remove what was used least recently where the cache has grown too large.

    Args:
        name: as :func:`digest` gave it.
        code: the object code.
    """
    place = folder()
    if place is None:
        return
    unfinished: str | None = None
    try:
        # A name of its own, then one rename: another process sees all of a file or none of it. A crash or a power cut may leave
        # half a file behind; its checksum tells.
        handle, unfinished = tempfile.mkstemp(prefix=name[:16], suffix=_UNFINISHED, dir=place)
        with open(handle, "wb") as file:
            file.write(_header(name, code) + code)
        os.replace(unfinished, place / (name + _SUFFIX))
        _trim(place)
    except OSError as error:
        _tell("compiled code cannot be kept: %s", error)
        if unfinished is not None:
            with suppress(OSError):
                os.unlink(unfinished)


def discard(name: str) -> None:
    """Remove what is stored under a digest.

    Args:
        name: as :func:`digest` gave it.
    """
    place = folder()
    if place is not None:
        with suppress(OSError):
            (place / (name + _SUFFIX)).unlink()


def clear() -> int:
    """Remove all stored code, and nothing else that may lie in the folder.

    Returns:
        How many modules were removed.
    """
    removed = 0
    for path, _, _ in _files(folder(), _SUFFIX) + _files(folder(), _UNFINISHED):
        with suppress(OSError):
            path.unlink()
            removed += path.suffix == _SUFFIX
    return removed


def info() -> Info:
    """What the cache holds, and where."""
    place = folder()
    files = _files(place, _SUFFIX)
    return Info(place, len(files), sum(size for _, size, _ in files))


def _header(name: str, code: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _FORMAT, bytes.fromhex(name), len(code), hashlib.blake2b(code, digest_size=32).digest())


def _files(place: Path | None, suffix: str) -> list[tuple[Path, int, float]]:
    """Path, size and time of last use of the files, the least recently used first."""
    found: list[tuple[Path, int, float]] = []
    if place is not None:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                if entry.name.endswith(suffix):
                    with suppress(OSError):  # another process has just removed it
                        status = entry.stat()
                        found.append((place / entry.name, status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: file[2])


def _trim(place: Path) -> None:
    files = _files(place, _SUFFIX)
    total, count = sum(size for _, size, _ in files), len(files)
    for path, size, _ in files[:-1]:  # never the one just written
        if count <= MAX_FILES and total <= MAX_BYTES:
            break
        with suppress(OSError):
            path.unlink()
        count, total = count - 1, total - size
    for path, _, used in _files(place, _UNFINISHED):  # a process that was killed left it
        if time.time() - used > _DAY:
            with suppress(OSError):
                path.unlink()
