"""Hands the training library our checkpoints, so that it never writes its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO

from carousel.training.checkpoint import load_checkpoint, save_checkpoint
from carousel.training.saved import SavedRun

__all__ = ["DirectoryCheckpoints"]


class DirectoryCheckpoints(CheckpointIO):
    """Checkpoints as directories of safetensors and JSON; see :mod:`carousel.training.checkpoint`.

    Args:
        saved: the run that goes on, read and checked already; None to read what is asked for.
    """

    def __init__(self, saved: SavedRun | None = None) -> None:
        self.saved = saved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint. That of the last step is the one to go on from: the one before it is kept."""
        if storage_options is not None:
            raise TypeError("storage_options: checkpoints are written to local directories only")
        save_checkpoint(Path(path), checkpoint, keep=Path(path).name == "last")

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,  # noqa: ARG002 - the library moves the tensors itself
        weights_only: bool | None = None,  # noqa: ARG002 - there is no code in a checkpoint to be afraid of
    ) -> dict[str, Any]:
        """Give the checkpoint of the run that goes on, or read one; its tensors are on the CPU."""
        saved, self.saved = self.saved, None
        return load_checkpoint(Path(path)) if saved is None else saved.take()

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        shutil.rmtree(path, ignore_errors=True)
