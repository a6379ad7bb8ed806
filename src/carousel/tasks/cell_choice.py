"""Which cell a task runs: by name from the library, or the user's own class, which only the user can hand over.

A saved model never leads to an import. It holds the name of the cell; if that is not one of the library's, the class
must be given again, and is checked against what was saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from carousel.errors import CellError, ConfigError, explain
from carousel.tasks.run_directory import CODE_ADVICE, ConfigFile

if TYPE_CHECKING:
    from carousel.graph import Cell

__all__ = ["choose_cell", "describe_cell", "require_vector_cell", "restore_cell"]


def choose_cell(spec: str | type[Cell] | Cell, options: Mapping[str, Any]) -> Cell:
    """Make the cell that the options ask for.

    Args:
        spec: a name from the library, a class or an instance.
        options: options of the cell; none may be given beside an instance.

    Raises:
        ConfigError: no such cell (the message names the nearest one), or an option that it does not have.
        CellError: the equations cannot be traced.
    """
    from carousel.cells import CELLS, resolve_cell

    if isinstance(spec, str) and spec not in CELLS and re.search(r"[.:/\\]", spec):
        raise ConfigError(
            explain(
                f"option cell: {spec!r} is not the name of a cell, and nothing is imported by its path.",
                expected="one of " + ", ".join(sorted(CELLS)),
                advice=CODE_ADVICE,
            )
        )
    cell = resolve_cell(spec, options)
    _ = cell.graph  # trace the equations now, before any data are read
    return cell


def describe_cell(cell: Cell) -> dict[str, Any]:
    """Say in plain values which cell this is, for a configuration."""
    from carousel.cells import cell_name

    found: dict[str, Any] = {"cell": cell_name(cell), "cell_options": dict(cell.options()), "custom_cell": not _is_ours(cell)}
    if found["custom_cell"]:
        found["cell_fingerprint"] = cell.fingerprint
    return found


def require_vector_cell(cell: Cell) -> None:
    """Refuse a cell that a sequence of vectors cannot feed: to be called before any data are read.

    Raises:
        ConfigError: it has several inputs, a context, or an input of another shape.
    """
    from carousel.cells import cell_name

    if len(cell.inputs) != 1 or cell.context or cell.shapes.get(cell.inputs[0], ("I",)) != ("I",):
        wants = ", ".join(f"{value} {cell.shapes.get(value, '(I)')}" for value in (*cell.inputs, *cell.context))
        what, got = f"option cell: {cell_name(cell)} cannot read a text.", f"a cell over {wants}"
        raise ConfigError(explain(what, got=got, expected="one vector a step"))


def restore_cell(saved: ConfigFile, given: type[Cell] | Cell | None) -> Cell:
    """Make the cell of a saved model.

    Args:
        saved: its configuration.
        given: the user's class or instance, if one was handed over.

    Raises:
        ConfigError: the cell is the user's own and was not handed over, or another one was; or there is no such cell.
    """
    from carousel.cells import cell_name

    name, options = saved.values.get("cell"), saved.values.get("cell_options") or {}
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise ConfigError(explain(f"{saved.place('cell')}: cell: not the name of a cell.", got=repr(name)))
    if not saved.values.get("custom_cell", False):
        if given is not None and cell_name(given) != name:
            raise ConfigError(f"{saved.place('cell')}: the model was trained with the cell {name!r}; leave out your own.")
        try:
            return choose_cell(name, options)
        except (CellError, ConfigError) as error:
            raise ConfigError(f"{saved.place('cell')}: {error}") from error
    if given is None:
        raise ConfigError(
            explain(f"{saved.place('cell')}: the model was trained with your own cell {name!r}.", advice=CODE_ADVICE)
        )
    cell = choose_cell(given, options if isinstance(given, type) else {})
    if cell_name(cell) != name:
        raise ConfigError(
            explain(f"{saved.place('cell')}: the model was trained with another cell.", got=cell_name(cell), expected=name)
        )
    expected = saved.values.get("cell_fingerprint")
    if expected and cell.fingerprint != expected:
        raise ConfigError(
            explain(
                f"{saved.place('cell')}: the equations of {name!r} are not those that the model was trained with.",
                advice="load it with the class as it was, or train again",
            )
        )
    return cell


def _is_ours(cell: Cell) -> bool:
    from carousel.cells import CELLS

    return type(cell) in CELLS.values()
