"""Models on disk: a directory with `model.json`, what the model is, and `model.safetensors`, its numbers. Neither holds
code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carousel.errors import CheckpointError, OutputError, explain
from carousel.files import replace_directory, write_flushed

__all__ = ["StrPath", "read_model", "write_model"]

StrPath = str | os.PathLike[str]

_FILES = {"model.json", "model.safetensors"}


def write_model(directory: StrPath, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a model, whole or not at all. A model that stands there is replaced; a directory of anything else is not touched.

    Args:
        directory: where; its parents are made.
        kind: what the model is.
        config: JSON values.
        tensors: by name.

    Raises:
        OutputError: it cannot be written, or the directory holds something else.
    """
    _refuse_others(Path(directory))
    from safetensors.torch import save

    text = json.dumps({"kind": kind, "config": dict(config)}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    numbers = save({name: tensor.contiguous() for name, tensor in tensors.items()})

    def fill(into: Path) -> None:
        write_flushed(into / "model.json", text.encode())
        write_flushed(into / "model.safetensors", numbers)

    replace_directory(Path(directory), fill)


def _refuse_others(directory: Path) -> None:
    """Replacing a directory deletes what is in it."""
    if not directory.is_dir():
        return
    others = sorted(entry.name for entry in directory.iterdir() if entry.name not in _FILES)
    if others:
        what = "the directory holds something else than a model, which would be deleted."
        raise OutputError(explain(what, got=", ".join(others[:3]), advice="give a new directory"), path=directory)


def read_model(directory: StrPath, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a model's options and numbers. Runs no code.

    Args:
        directory: where :func:`write_model` wrote it.
        kind: what it must be.

    Raises:
        CheckpointError: it is not such a model, or damaged.
        OSError: the files are not there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(directory) / "model.json"
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(explain(f"{path}: this is not JSON.", got=str(error)[:200])) from error
    if not isinstance(content, dict) or content.keys() != {"kind", "config"} or not isinstance(content["config"], dict):
        raise CheckpointError(explain(f"{path}: this is not a saved model.", expected='{"kind": ..., "config": {...}}'))
    if content["kind"] != kind:
        raise CheckpointError(explain(f"{path}: this is another model.", got=repr(content["kind"])[:80], expected=repr(kind)))
    path = path.with_name("model.safetensors")
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(explain(f"{path}: this is not a safetensors file.", got=str(error)[:200])) from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(explain(f"{path}: {name} holds something that is no finite number."))
    return content["config"], tensors
