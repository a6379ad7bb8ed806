"""Checkpoints without pickle: a directory of safetensors and JSON.

A checkpoint is a nested dictionary. On disk it is a directory of four files:

- ``model.safetensors``: the entry ``state_dict``, the weights under the model's own parameter names;
- ``trainer.safetensors``: all other tensors, named by their path in the dictionary;
- ``trainer.json``: all the rest, with ``format``, ``version`` and the dictionary under ``state``;
- ``manifest.json``: size and SHA-256 of each; see :mod:`carousel.training.manifest`.

What JSON cannot say is written as an object with one key that starts with ``$``:

.. code-block:: text

    {"$tensor": NAME}      a tensor of trainer.safetensors       {"$weights": [NAME, ...]}   model.safetensors
    {"$tuple": [...]}      {"$set": [...]}                       {"$float": "nan" | "inf" | "-inf"}
    {"$dict": [[KEY, VALUE], ...]}        keys that are not strings, or that start with $
    {"$ordered": [[KEY, VALUE], ...]}     an OrderedDict

Anything else is an error when it is saved, so that nothing is lost in silence. Reading runs no code, compares every byte
with its hash first, and needs about twice the room of the files.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from carousel.errors import CheckpointError, explain
from carousel.files import replace_directory, settle_directory
from carousel.training.manifest import MAX_JSON_BYTES, DamagedError, read_json_bytes, read_manifest, read_sealed, seal

__all__ = ["load_checkpoint", "load_weights", "one_before", "save_checkpoint"]

FORMAT = "carousel-checkpoint"
VERSION = 2
WEIGHTS = "model.safetensors"
TENSORS = "trainer.safetensors"
REST = "trainer.json"


def one_before(directory: Path) -> Path:
    """Where the checkpoint that a newer one has replaced is kept."""
    return directory.with_name(f".{directory.name}.before")


def save_checkpoint(directory: Path, checkpoint: Mapping[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint as a directory, all of it or nothing. An older one is kept until the new one is complete.

    Args:
        directory: where; its parents are made.
        checkpoint: the dictionary. Its entry ``state_dict``, if there is one, holds the weights by name. Not changed.
        keep: whether the older one is kept even then, hidden beside it; see :func:`one_before`.

    Raises:
        CheckpointError: a value of a type that cannot be stored (the message names its path in the dictionary), or texts
            and lists of more than 16 MiB.
        OutputError: the directory cannot be written; the older checkpoint is still there.
    """
    packed = _Packer()
    state: dict[str, Any] = {}
    weights: dict[str, Tensor] = {}
    for name, value in checkpoint.items():
        if name == "state_dict":
            weights = {key: _storable(tensor, f"{name}/{key}") for key, tensor in value.items()}
            state[name] = {"$weights": list(weights)}
        else:
            state[name] = packed.pack(value, name)
    header = {"format": FORMAT, "version": VERSION, "torch": torch.__version__, "state": state}
    text = json.dumps(header, allow_nan=False, ensure_ascii=False, indent=1).encode()
    if len(text) > MAX_JSON_BYTES:
        what = "the checkpoint holds too long texts or lists: it could not be read again."
        raise CheckpointError(explain(what, got=f"{len(text)} bytes", expected=f"at most {MAX_JSON_BYTES}"))
    contents = {
        WEIGHTS: safetensors.torch.save(_unshared(weights)),
        TENSORS: safetensors.torch.save(_unshared(packed.tensors)),
        REST: text,
    }
    directory = Path(directory)
    replace_directory(directory, lambda new: seal(new, contents), previous=one_before(directory) if keep else None)


def load_checkpoint(directory: Path) -> dict[str, Any]:
    """Read a checkpoint that :func:`save_checkpoint` wrote. Tensors come to the CPU.

    Args:
        directory: the checkpoint. An exchange with a newer one that was cut short is finished first.

    Raises:
        CheckpointError: a file is missing, damaged, or from a later version; the message names it.
        OutputError: an exchange was cut short, and the directory may not be changed.
    """
    directory = Path(directory)
    settle_directory(directory, one_before(directory))
    manifest = read_manifest(directory)
    header = read_json_bytes(directory, REST, read_sealed(directory, REST, manifest))
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("state"), dict):
        raise _unreadable(directory, REST, f"no {FORMAT}")
    if header.get("version") != VERSION:
        what = f"the checkpoint {directory} has version {header.get('version')}; this carousel reads version {VERSION}."
        raise CheckpointError(explain(what, advice="use the carousel that wrote it, or a newer one"))
    weights = _read_tensors(directory, WEIGHTS, manifest)
    tensors = _read_tensors(directory, TENSORS, manifest)
    try:
        state: dict[str, Any] = {name: _unpack(value, tensors, weights) for name, value in header["state"].items()}
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise _unreadable(directory, REST, f"{type(error).__name__}: {error}") from error
    return state


def load_weights(directory: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, by the model's parameter names, on the CPU.

    Args:
        directory: the checkpoint.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    directory = Path(directory)
    return _read_tensors(directory, WEIGHTS, read_manifest(directory))


class _Packer:
    """Turns a tree into what JSON can hold, and takes the tensors out of it."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def pack(self, value: Any, path: str) -> Any:
        # Exact types on purpose: a subclass (an enum, a named tuple, a NumPy scalar) would come back as something else.
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if kind is list:
            return self._pack_all(value, path)
        if kind is tuple:
            return {"$tuple": self._pack_all(value, path)}
        if kind is set:
            return {"$set": self._pack_all(sorted(value, key=repr), path)}
        if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.pack(item, f"{path}/{key}") for key, item in value.items()}
        if kind in (dict, OrderedDict):
            pairs = [[self.pack(key, f"{path}/{key}"), self.pack(item, f"{path}/{key}")] for key, item in value.items()]
            return {"$dict" if kind is dict else "$ordered": pairs}
        if isinstance(value, Tensor):
            return {"$tensor": self._store(value, path)}
        raise _unstorable(value, path)

    def _pack_all(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self.pack(item, f"{path}/{index}") for index, item in enumerate(values)]

    def _store(self, tensor: Tensor, path: str) -> str:
        name = path
        while name in self.tensors:  # the keys 0 and "0" read alike
            name += "'"
        self.tensors[name] = _storable(tensor, path)
        return name


def _unpack(value: Any, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors, weights) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: _unpack(item, tensors, weights) for key, item in value.items()}
    if len(value) > 1:
        raise ValueError(f"{tag} among other keys")
    content = value[tag]
    if tag == "$tensor":
        return tensors[content]
    if tag == "$float":
        return float(content)
    if not isinstance(content, list):
        raise ValueError(f"no list under {tag}")
    if tag == "$weights":
        return OrderedDict((name, weights[name]) for name in content)
    items = _unpack(content, tensors, weights)
    if tag == "$tuple":
        return tuple(items)
    if tag == "$set":
        return set(items)
    if tag == "$dict":
        return {key: item for key, item in items}  # noqa: C416 - dict() would also take what are not pairs
    if tag == "$ordered":
        return OrderedDict((key, item) for key, item in items)
    raise ValueError(f"unknown tag {tag}")


def _storable(tensor: Any, path: str) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise _unstorable(tensor, path)
    return tensor.detach().to("cpu").contiguous()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights): the format stores each on its own."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen or tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
        seen.add(memory)
    return apart


def _read_tensors(directory: Path, name: str, manifest: Mapping[str, tuple[int, str]]) -> dict[str, Tensor]:
    data = read_sealed(directory, name, manifest)
    try:
        return safetensors.torch.load(data)
    except BaseException as error:  # the reader's errors have no common base, and a panic of it is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _unreadable(directory, name, f"{len(data)} bytes; {error}") from error


def _unreadable(directory: Path, name: str, reason: str) -> CheckpointError:
    what = f"the checkpoint {directory} cannot be used: {name} does not hold what it should."
    return DamagedError(explain(what, got=reason, advice="continue from another checkpoint of the run, or train again"))


def _unstorable(value: object, path: str) -> CheckpointError:
    what = f"the checkpoint holds a value that cannot be stored without pickle, at {path}."
    expected = "a dense tensor, None, bool, int, float, str, list, tuple, set or dict"
    advice = "turn it into one of these before it is saved"
    return CheckpointError(explain(what, got=type(value).__qualname__, expected=expected, advice=advice))
