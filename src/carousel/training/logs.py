"""The numbers of a run on disk: metrics.csv and TensorBoard's events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carousel.files import write_file

__all__ = ["EventLog", "write_metrics"]

EDGES = ("epoch", "step", "seconds", "lr")


def write_metrics(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write ``metrics.csv``: a header and one row per epoch, whole or not at all.

    Columns: epoch, step (optimizer steps so far), seconds (of training and validation so far), lr, train_*, valid_*,
    tokens_per_second. Numbers are written so that reading them gives the same floats; a missing one is empty.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=_columns(rows), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_file(path, text.getvalue().encode())


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    train = [name for name in names if name.startswith("train_")]
    valid = [name for name in names if name.startswith("valid_")]
    return [*EDGES, *train, *valid, "tokens_per_second"]


class EventLog:
    """TensorBoard's events of a run; nothing is imported before the first epoch is written.

    Args:
        directory: where the event files go.
        purge_step: events from this optimizer step on, left by a part of the run that is now repeated, are hidden.
    """

    def __init__(self, directory: Path, purge_step: int | None = None) -> None:
        self.directory = directory
        self.purge_step = purge_step
        self._writer: Any = None

    def write(self, row: Mapping[str, float]) -> None:
        """Write one epoch, at its optimizer step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.directory), purge_step=self.purge_step)
        for name, value in row.items():
            if name != "step":
                part, _, metric = name.partition("_")
                # train and valid of one metric share a heading
                tag = f"{metric}/{part}" if part in ("train", "valid") else f"run/{name}"
                self._writer.add_scalar(tag, value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
