"""Weights on disk: safetensors, which hold numbers and no code. What they say is checked before memory is given to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel import __version__
from carousel.data import replacing
from carousel.errors import CarouselError, CheckpointError, explain
from carousel.tasks.config_file import ConfigFile

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Outline", "build_checked", "check_sizes", "outline_of", "read_weights", "write_weights"]

Outline = Mapping[str, tuple[int, ...]]
"""The shape of each tensor by its name."""


def write_weights(path: Path, weights: Mapping[str, torch.Tensor], *, task: str, config: Mapping[str, Any]) -> None:
    """Write weights as safetensors, atomically; the header's entry `carousel` is JSON: version, task, config.

    Args:
        path: the file.
        weights: name to tensor; moved to the CPU for writing, not changed.
        task: the task's name.
        config: the resolved configuration.
    """
    import safetensors.torch

    # One key only: the library writes several in a random order, and the same model shall be the same file.
    header = {"version": __version__, "task": task, "config": dict(config)}
    metadata = {"carousel": json.dumps(header, ensure_ascii=False)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))  # through bytes: a full disk keeps its reason


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights onto the CPU.

    Raises:
        CheckpointError: the file is damaged, or holds NaN or infinity.
    """
    import safetensors.torch
    import torch

    with _contained(path):
        weights: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, tensor.aminmax())):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity: the file is damaged, or training went wrong.")
    return weights


def outline_of(path: Path) -> Outline:
    """The shapes in a file of weights, from its header alone.

    Raises:
        CheckpointError: the file is damaged.
    """
    import safetensors

    with _contained(path), safetensors.safe_open(path, framework="pt") as stream:
        return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118 - no mapping


def check_sizes(saved: ConfigFile, outline: Outline) -> None:
    """Refuse sizes in a configuration that the weights beside it cannot have, before anything is made so large.

    Raises:
        CheckpointError: such a size.
    """
    tensors, numbers = len(outline), sum(map(math.prod, outline.values()))
    for name, most in (("num_layers", tensors), ("hidden_size", numbers), ("embedding_size", numbers)):
        value = saved.values.get(name)
        if isinstance(value, int) and value > most:
            expected = f"at most {most:,}: the weights are {tensors:,} tensors, {numbers:,} numbers"
            raise CheckpointError(explain(f"{saved.place(name)}: {name} does not fit.", got=str(value), expected=expected))


def build_checked(build: Callable[[], nn.Module], outline: Outline, path: Path) -> nn.Module:
    """Make a network, once it is sure that it is of the size that its weights have.

    Args:
        build: makes it.
        outline: the weights.
        path: their file, for messages.

    Raises:
        CheckpointError: they do not fit.
    """
    import torch

    with torch.device("meta"):  # shapes without memory
        skeleton = _built(build, path)
    wanted = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    for name in sorted({*wanted, *outline}):
        if outline.get(name) != wanted.get(name):
            got, expected = (str(shapes.get(name, "no such tensor")) for shapes in (outline, wanted))
            raise CheckpointError(explain(f"{path}: {name} does not fit the configuration.", got=got, expected=expected))
    return _built(build, path)


def _built(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    try:
        return build()
    except CarouselError:
        raise
    # Sizes or values that no network has.
    except (ArithmeticError, LookupError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit its configuration: {str(error) or type(error).__name__}") from error


@contextmanager
def _contained(path: Path) -> Iterator[None]:
    """Turn whatever the library says of a damaged file into our error; it can panic past `except Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, CheckpointError):
        raise
    except BaseException as error:
        if isinstance(error, MemoryError):
            raise
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error}).") from error
