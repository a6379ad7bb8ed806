"""A list of a directory's files with the hash of each, so that damage is found before it is used.

``manifest.json`` names every file with its size and its SHA-256. Its last entry is the SHA-256 of the manifest without
that entry, and its text must be exactly what we would write: no byte of the directory can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carousel.errors import CheckpointError, explain
from carousel.files import write_flushed

__all__ = ["MANIFEST", "DamagedError", "read_json_bytes", "read_manifest", "read_sealed", "seal"]

MANIFEST = "manifest.json"
FORMAT = "carousel-manifest"
VERSION = 1
# What JSON we read may be this long: a reader's lists and numbers take some thirty times the room of their text.
MAX_JSON_BYTES = 1 << 24
MAX_MANIFEST_BYTES = 1 << 16


class DamagedError(CheckpointError):
    """A file of a checkpoint is not what was written. The one before it may still be whole."""


def seal(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a directory, and their manifest last.

    Args:
        directory: one that nobody reads yet.
        contents: name to content.
    """
    files = {}
    for name, data in contents.items():
        write_flushed(directory / name, data)
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_flushed(directory / MANIFEST, _text({"format": FORMAT, "version": VERSION, "files": files}).encode())


def read_manifest(directory: Path) -> dict[str, tuple[int, str]]:
    """Read the manifest of a directory: name to size in bytes and SHA-256.

    Raises:
        DamagedError: it is missing or changed.
    """
    text = _read(directory, MANIFEST, MAX_MANIFEST_BYTES)
    content = read_json_bytes(directory, MANIFEST, text)
    try:
        body = {name: value for name, value in content.items() if name != "sha256"}
        if body["format"] != FORMAT or _text(body).encode() != text:
            raise _changed(directory, MANIFEST, "its own hash does not fit it")
        if body["version"] != VERSION:
            what = f"the checkpoint {directory} has a manifest of version {body['version']!r}; this carousel reads {VERSION}."
            raise CheckpointError(explain(what, advice="use the carousel that wrote it, or a newer one"))
        found = {name: (entry["bytes"], entry["sha256"]) for name, entry in body["files"].items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _changed(directory, MANIFEST, f"{type(error).__name__}: {error}") from error
    for name, (size, digest) in found.items():
        plain = isinstance(name, str) and name not in ("", ".", "..", MANIFEST) and not {"/", "\\", "\0"} & set(name)
        if not plain or type(size) is not int or not isinstance(digest, str):
            raise _changed(directory, MANIFEST, f"an impossible entry {name!r}")
    return found


def read_sealed(directory: Path, name: str, manifest: Mapping[str, tuple[int, str]]) -> bytes:
    """Read a file of a directory, and compare it with the manifest.

    Args:
        directory: the directory.
        name: the file.
        manifest: from :func:`read_manifest`.

    Raises:
        DamagedError: the file is missing, unreadable, a link, or not what was written.
    """
    if name not in manifest:
        raise _changed(directory, MANIFEST, f"it does not name {name}")
    size, digest = manifest[name]
    data = _read(directory, name, size)
    if len(data) != size:
        raise _changed(directory, name, f"{len(data)} bytes instead of {size}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise _changed(directory, name, "its content is not what was written (SHA-256)")
    return data


def read_json_bytes(directory: Path, name: str, data: bytes) -> Any:
    """Read JSON out of the bytes of a checkpoint's file.

    Raises:
        DamagedError: the bytes are too many, or no JSON.
    """
    if len(data) > MAX_JSON_BYTES:
        raise _changed(directory, name, f"{len(data)} bytes; at most {MAX_JSON_BYTES} are read")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _changed(directory, name, str(error)) from error


def _text(body: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps(body | {"sha256": digest}, indent=1) + "\n"


def _read(directory: Path, name: str, most: int) -> bytes:
    """Read a file, unless it is longer than `most` bytes."""
    path = directory / name
    try:
        if path.is_symlink() or not path.is_file():
            raise _changed(directory, name, "not a plain file" if path.is_symlink() or path.exists() else "no such file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # asked first: `read` makes room for as many bytes as it is told
            if size > most:
                raise _changed(directory, name, f"{size} bytes instead of at most {most}")
            return file.read(size)
    except OSError as error:
        raise _changed(directory, name, error.strerror or str(error)) from error


def _changed(directory: Path, name: str, reason: str) -> DamagedError:
    what = f"the checkpoint {directory} is damaged or incomplete: {name} cannot be read."
    advice = "continue from another checkpoint of the run (a copy of best/ in the place of last/), or train again"
    return DamagedError(explain(what, got=reason, advice=advice))
