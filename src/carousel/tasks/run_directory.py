"""A run directory on disk: it appears whole or not at all, holds no pickle, and reading it runs nobody's code.

.. code-block:: text

    config.yaml         every option, resolved; the same file works as `--config`
    model.safetensors   the weights; its header repeats the configuration and the version
    vocabulary.json     (and others like it) what turns records into numbers
    metrics.csv, learning_curve.png, tensorboard/    written by training
    last/, best/        checkpoints written by training
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from carousel.errors import CheckpointError, ConfigError, explain
from carousel.tasks.config_file import CODE_ADVICE, ConfigFile, read_config, write_config

__all__ = [
    "CODE_ADVICE",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "ConfigFile",
    "Publication",
    "check_destination",
    "check_files",
    "is_run_directory",
    "path_text",
    "publish",
    "read_config",
    "stage",
    "write_config",
]

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
SMALL = 1 << 20  # bytes


def path_text(data: object) -> str | None:
    """What a configuration says of data: the path of a file, None for what is in memory."""
    return os.fspath(data) if isinstance(data, str | os.PathLike) else None


def is_run_directory(path: Path) -> bool:
    """Whether `path` holds a run: its configuration is there."""
    return (path / CONFIG_FILE).is_file()


def check_files(directory: Path) -> None:
    """Refuse a run directory whose files are not what they should be, before any of them is read.

    Raises:
        CheckpointError: a link that leads out of the directory; something that is no file (a pipe would wait for ever); a
            JSON file that is compressed, or larger than the weights.
    """
    base = directory.resolve()
    weights = 0
    described: list[Path] = []
    for folder in (base, base / "best"):
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.is_symlink() and not _within(entry, base):
                raise CheckpointError(f"{entry}: a link that leads out of the run directory is not followed.")
            if not (entry.is_file() or entry.is_dir()):
                raise CheckpointError(f"{entry}: not a file that a run directory holds.")
            if entry.is_file() and entry.suffix == ".safetensors":
                weights = max(weights, entry.stat().st_size)
            elif entry.is_file() and entry.suffix == ".json" and folder == base and not entry.name.startswith("report"):
                described.append(entry)
    for path in described:
        size = path.stat().st_size
        if size > max(SMALL, weights):
            got, expected = f"{size:,} bytes", "no more than the weights have"
            raise CheckpointError(explain(f"{path}: larger than it can be.", got=got, expected=expected))
        with path.open("rb") as stream:
            if stream.read(2) == b"\x1f\x8b":
                raise CheckpointError(f"{path}: compressed; a run directory's files are plain.")


def _within(path: Path, base: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(base)
    except (OSError, RuntimeError):  # leads nowhere, or in a circle
        return False


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
