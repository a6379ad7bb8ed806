"""Every exception that carousel raises, as one tree.

.. code-block:: text

    CarouselError                  catch this one to catch them all
    ├── ShapeError(ValueError)     an axis has another size than the layer or the equation needs
    ├── DTypeError(TypeError)      a tensor or an argument is of the wrong type
    ├── CellError(ValueError)      a cell's equations cannot be traced; names the cell's file and line
    ├── ConfigError(ValueError)    an option, a name or a combination of them is not possible
    ├── DataError(ValueError)      a data file cannot be read; names file and line
    ├── OutputError(OSError)       a file or a directory cannot be written: a full disk, no permission
    ├── NotFittedError(RuntimeError)      a model is used before it was fitted or loaded
    ├── KernelUnavailable(RuntimeError)   an engine was asked for that cannot run this cell here
    ├── CheckpointError(RuntimeError)     a saved model or checkpoint is damaged or does not fit
    └── TrainingError(RuntimeError)       training cannot go on (a loss that is not a number, say)

A message has three parts: what was wrong, what was got, what to do. :func:`explain` lays them out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CarouselError",
    "CellError",
    "CheckpointError",
    "ConfigError",
    "DTypeError",
    "DataError",
    "KernelUnavailable",
    "NotFittedError",
    "OutputError",
    "ShapeError",
    "TrainingError",
    "explain",
    "unknown_name",
]

MAX_GOT = 2000  # characters of what was got; a file can make a value as long as it likes


class CarouselError(Exception):
    """The base of all errors that carousel raises on purpose."""


class ShapeError(CarouselError, ValueError):
    """An axis has another size than the layer or the equation needs."""


class DTypeError(CarouselError, TypeError):
    """A tensor or an argument is of the wrong type."""


class CellError(CarouselError, ValueError):
    """A cell's equations cannot be traced. The message names the cell's file and line."""


class ConfigError(CarouselError, ValueError):
    """An option, a name or a combination of them is not possible."""


class DataError(CarouselError, ValueError):
    """A data file cannot be read.

    Args:
        message: what was wrong, what was got, what to do.
        path: the file, if there is one.
        line: the line in it, counted from 1, if there is one.
    """

    def __init__(self, message: str, *, path: object = None, line: int | None = None) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)
        self.path = path
        self.line = line


class OutputError(CarouselError, OSError):
    """A file or a directory cannot be written: the disk is full or failing, or it may not be written to.

    The operating system's own error is the ``__cause__``.

    Args:
        message: what was wrong, what was got, what to do.
        path: the file or the directory.
    """

    def __init__(self, message: str, *, path: object) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class NotFittedError(CarouselError, RuntimeError):
    """A model is used before it was fitted or loaded."""


class KernelUnavailable(CarouselError, RuntimeError):  # noqa: N818 - the name says what is missing, as users search for it
    """An engine was asked for that cannot run this cell on this machine."""


class CheckpointError(CarouselError, RuntimeError):
    """A saved model or checkpoint is damaged, incomplete or does not fit."""


class TrainingError(CarouselError, RuntimeError):
    """Training cannot go on, for example because the loss is not a number."""


def explain(what: str, *, got: str | None = None, expected: str | None = None, advice: str | None = None) -> str:
    """Lay out an error message: what was wrong, what we got, what was expected, what to do.

    Example:
        >>> print(explain("Recurrent: hidden_size must be positive.", got="0", advice="give at least 1"))
        Recurrent: hidden_size must be positive.
          got:      0
          try:      give at least 1
    """
    parts = [what]
    if got is not None and len(got) > MAX_GOT:
        got = got[:MAX_GOT] + " ..."
    parts += [f"  {label:<9} {text}" for label, text in (("got:", got), ("expected:", expected), ("try:", advice)) if text]
    return "\n".join(parts)


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Word an error about a name that is not known, with the nearest valid one.

    Example:
        >>> print(unknown_name("cell", "lsmt", ["gru", "lstm"]))
        unknown cell 'lsmt'. Did you mean 'lstm'?
          expected: one of gru, lstm
    """
    names = sorted(choices)
    by_lower = {choice.lower(): choice for choice in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f" Did you mean '{by_lower[near[0]]}'?" if near else ""
    return explain(f"unknown {kind} '{name}'.{hint}", expected="one of " + ", ".join(names))
