"""A run directory on disk: it appears whole or not at all, holds no pickle, and reading it runs nobody's code.

.. code-block:: text

    config.yaml         every option, resolved; the same file works as `--config`
    model.safetensors   the weights; its header repeats the configuration and the version
    vocabulary.json     (and others like it) what turns records into numbers
    metrics.csv, learning_curve.png, tensorboard/    written by training
    last/, best/        checkpoints written by training
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from carousel import __version__
from carousel.data import replacing
from carousel.errors import CheckpointError, ConfigError, explain

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "ConfigFile",
    "Publication",
    "check_destination",
    "is_run_directory",
    "publish",
    "read_config",
    "read_weights",
    "stage",
    "write_config",
    "write_weights",
]

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
CODE_ADVICE = "pass your class on the command line: --code FILE.py --cell NAME (in Python: cell=NAME)"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, reading 1e-3 as a number as YAML 1.2 does."""


class _Dumper(yaml.SafeDumper):
    """YAML's safe writer, for what :class:`_Loader` reads: a text that looks like a number gets its quotes."""


_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\d+[eE][-+]?\d+$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
        for first, resolvers in _kind.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class ConfigFile:
    """What a configuration file says, and on which line it says it.

    Args:
        path: the file.
        values: option to value.
        lines: option to line, counted from 1.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def place(self, name: str) -> str:
        """Where option `name` stands, as ``file:line``."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else str(self.path)


def read_config(path: str | os.PathLike[str]) -> ConfigFile:
    """Read a configuration file. Nothing that it says is imported or called.

    Raises:
        ConfigError: not YAML, not names with values, or an attempt to name code; the message names file and line.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that reads numbers as YAML 1.2 does
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start}).") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    if node is None:
        return ConfigFile(path, {}, {})
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, str) for key in values):
        raise ConfigError(explain(f"{path}:1: not a configuration.", expected="lines `option: value`"))
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    found = ConfigFile(path, values, lines)
    for name, value in values.items():
        if name == "code":
            raise ConfigError(f"{found.place(name)}: a configuration cannot name code to run.\n  try:      {CODE_ADVICE}")
        if name == "class_path" or _names_class(value):
            raise ConfigError(f"{found.place(name)}: a configuration cannot name a class to import (class_path).")
    return found


def _names_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(_names_class(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_names_class(item) for item in value)
    return False


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as YAML, in their order, atomically."""
    head = f"# Written by carousel {__version__}. `carousel fit TASK --config THIS_FILE --out DIR` trains it again.\n"
    with replacing(path) as temporary:
        temporary.write_text(
            head + yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


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
        CheckpointError: the file is damaged.
    """
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error}).") from error


def is_run_directory(path: Path) -> bool:
    """Whether `path` holds a run: its configuration is there."""
    return (path / CONFIG_FILE).is_file()


def check_destination(out: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Refuse a destination before any work is done.

    Raises:
        ConfigError: it exists and neither `overwrite` nor `resume` was asked for; or it is not a run, which is never
            overwritten; or there is nothing to resume.
    """
    if out.resolve() == Path.cwd() or not out.name or out.name == "..":
        raise ConfigError(explain(f"{out}: cannot be a run directory.", advice="name a new directory, such as runs/mine"))
    if overwrite and resume:
        raise ConfigError("overwrite and resume exclude each other: begin anew, or go on.")
    if resume:
        if not is_run_directory(out):
            raise ConfigError(explain(f"{out}: no run to resume here.", advice="fit without --resume"))
        return
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (out.is_dir() and is_run_directory(out)):
        raise ConfigError(
            explain(f"{out}: exists and is not a run directory; it is never overwritten.", advice="name another directory")
        )
    if not overwrite:
        raise ConfigError(
            explain(
                f"{out}: a run is already there.",
                advice="--overwrite to replace it, --resume to go on training, or another directory "
                "(in Python: overwrite=True, resume=True)",
            )
        )


def stage(out: Path) -> Path:
    """Make an empty hidden directory beside `out`, to be filled and then given to :func:`publish`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    staging.mkdir()
    return staging


@dataclass(frozen=True)
class Publication:
    """A directory that has just taken its place, and what stood there before.

    Args:
        out: the place.
        previous: where the directory that stood there was moved, or None.
    """

    out: Path
    previous: Path | None

    def commit(self) -> None:
        """Forget what stood there before."""
        if self.previous is None:
            return
        if self.previous.is_symlink():
            self.previous.unlink()
        else:
            shutil.rmtree(self.previous)

    def rollback(self) -> None:
        """Put back what stood there before."""
        shutil.rmtree(self.out, ignore_errors=True)
        if self.previous is not None:
            self.previous.rename(self.out)


def publish(staging: Path, out: Path) -> Publication:
    """Rename `staging` to `out`; a directory that is there already is moved aside until the caller decides."""
    previous = None
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        previous = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
        out.rename(previous)
    try:
        staging.rename(out)
    except OSError:
        if previous is not None:
            previous.rename(out)
        raise
    return Publication(out, previous)
