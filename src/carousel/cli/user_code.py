"""``--code FILE.py``: the only way by which a user's own module is imported, and only from the command line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.errors import CarouselError, ConfigError, explain, unknown_name

if TYPE_CHECKING:
    from carousel.graph import Cell
    from carousel.tasks import Estimator

__all__ = ["load_cell", "open_run"]


def load_cell(code: str, name: str | None) -> type[Cell]:
    """Run a Python file and take a cell from it.

    Args:
        code: the file.
        name: the class; None takes the only cell that the file defines.

    Raises:
        ConfigError: the file cannot be run (the message names its line), or has no such cell.
    """
    from carousel.graph import Cell

    found = {
        key: value
        for key, value in vars(_run(code)).items()
        if isinstance(value, type) and issubclass(value, Cell) and value.__module__ == _module_name(code)
    }
    if not found:
        raise ConfigError(explain(f"{code}: defines no cell.", expected="a class that derives from carousel.Cell"))
    if name is None:
        if len(found) > 1:
            raise ConfigError(explain(f"{code}: defines {len(found)} cells.", advice=f"--cell {' or --cell '.join(found)}"))
        return next(iter(found.values()))
    if name not in found:
        raise ConfigError(f"{code}: {unknown_name('cell', name, found)}")
    return found[name]


def open_run(directory: str, *, code: str | None, cell: str | None, device: str) -> Estimator[Any]:
    """Load the model of a run directory, whatever its task.

    Args:
        directory: the run directory.
        code: the file with the user's own cell, if the model needs one.
        cell: the class in it; None takes the one that the model names.
        device: where to compute.
    """
    from carousel.tasks import load_task
    from carousel.tasks.run_directory import CONFIG_FILE, is_run_directory, read_config

    path = Path(directory)
    if not is_run_directory(path):
        what = "not a run directory" if path.exists() else "no such directory"
        raise ConfigError(explain(f"{path}: {what}.", expected=f"what `carousel fit` wrote: a directory with {CONFIG_FILE}"))
    saved = read_config(path / CONFIG_FILE)
    task = load_task(str(saved.values.get("task")))
    if code is None and cell is not None:
        raise ConfigError(explain("--cell belongs to --code here: a run knows its own cell.", advice="leave it out"))
    own = None if code is None else load_cell(code, cell or str(saved.values.get("cell")))
    return task.load(path, own, device=device)


def _module_name(code: str) -> str:
    return "carousel_user_code_" + Path(code).stem


def _run(code: str) -> object:
    path = Path(code)
    if not path.is_file():
        raise ConfigError(explain(f"--code {code}: there is no such file."))
    if path.suffix != ".py":
        raise ConfigError(explain(f"--code {code}: not a Python file.", expected="a file that ends in .py"))
    name = _module_name(code)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--code {code}: cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # as `python FILE.py` would, so that it finds its neighbours
    try:
        spec.loader.exec_module(module)
    except CarouselError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}") from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything; it becomes one message with its place
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        place = f"{code}:{lines[-1]}" if lines else code
        raise ConfigError(f"{place}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module
