"""A disk that fails when a test says so: stands between ``carousel.files`` and the system."""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carousel import files

OPERATIONS = ("makedirs", "open", "write", "fsync", "replace", "rename", "rmtree", "unlink", "close")


class _System:
    """The module `os`, with a word before each operation."""

    def __init__(self, hook: Callable[[str], None]) -> None:
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in OPERATIONS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._hook(name)
            return found(*arguments, **options)

        return call


class _Removal:
    """The module `shutil`: directories are removed file by file, with a word before each."""

    def __init__(self, hook: Callable[[str], None]) -> None:
        self._hook = hook

    def rmtree(self, path: Path, ignore_errors: bool = False) -> None:
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            self._hook("unlink")
            os.unlink(Path(path, name))
        self._hook("rmtree")
        shutil.rmtree(path, ignore_errors=ignore_errors)


class _File:
    """A file that is written in two halves, with a word between."""

    def __init__(self, file: Any, hook: Callable[[str], None]) -> None:
        self._file = file
        self._hook = hook

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._hook("write")
        return half + self._file.write(data[half:])


def intercept(hook: Callable[[str], None], set_attribute: Callable[..., None] = setattr) -> None:
    """Let `hook` hear of every operation of ``carousel.files``, just before it happens; what it raises happens instead.

    `set_attribute` is ``monkeypatch.setattr`` where the test goes on afterwards.
    """

    def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        hook("open")
        file = builtins.open(path, mode, *arguments, **options)  # noqa: SIM115 - the caller closes it
        return _File(file, hook) if mode == "wb" else file

    set_attribute(files, "os", _System(hook))
    set_attribute(files, "shutil", _Removal(hook))
    vars(files).setdefault("open", builtins.open)
    set_attribute(files, "open", opened)
