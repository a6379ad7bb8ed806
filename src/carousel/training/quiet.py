"""Keeps the training library's advertisements and warnings about choices that are ours from the user's screen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

# The last is not silenced: a user who asks for a profiler wants its table.
LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities", "lightning.pytorch.profilers")
# Modules whose warnings say nothing to a user; a warning that names the user's own code still comes through.
MODULES = r"(lightning|lightning_utilities|lightning_fabric|pytorch_lightning|torchmetrics|tensorboard)(\.|$)"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers and the warnings of the training library inside the block, and restore them after it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=MODULES)
        import lightning.pytorch  # noqa: F401 - its import sets the levels of its loggers, so it goes first

        loggers = [logging.getLogger(name) for name in LOGGERS]
        levels = [logger.level for logger in loggers]
        _set(loggers, [logging.ERROR] * (len(loggers) - 1) + [logging.INFO])
        try:
            yield
        finally:
            _set(loggers, levels)


def _set(loggers: list[logging.Logger], levels: list[int]) -> None:
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
