"""Hands the training library our checkpoints, so that it never writes its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO

from carousel.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["DirectoryCheckpoints"]


class DirectoryCheckpoints(CheckpointIO):
    """Checkpoints as directories of safetensors and JSON; see :mod:`carousel.training.checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        if storage_options is not None:
            raise TypeError("storage_options: checkpoints are written to local directories only")
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,  # noqa: ARG002 - the library moves the tensors itself
        weights_only: bool | None = None,  # noqa: ARG002 - there is no code in a checkpoint to be afraid of
    ) -> dict[str, Any]:
        """Read a checkpoint; its tensors are on the CPU."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        shutil.rmtree(path, ignore_errors=True)
