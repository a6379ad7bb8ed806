"""``carousel cells [NAME]``: the library's cells, and the equations of one in several forms."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from carousel.cli.console import print_table
from carousel.cli.parsing import CODE_HELP, VerbParser
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.graph import Cell

__all__ = ["page", "parser", "run", "table"]

FORMS = ("equations", "latex", "graph", "schedule", "backward", "loop", "llvm", "asm")
COMPILED = ("loop", "llvm", "asm")


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    if given.markdown:
        print(page(given.input_size, given.hidden_size), end="")
        return 0
    if given.name is None and given.code is None:
        if given.emit:
            raise ConfigError(explain("--emit prints one cell.", advice=f"carousel cells lstm --emit {given.emit}"))
        _check_options(given)
        header, rows = table(given.input_size, given.hidden_size)
        print_table(header, rows)
        return 0
    _check_options(given)
    cell = _find(given.name, given.code)
    if given.emit:
        print(_emitted(cell, given))
    else:
        _describe(cell, given.input_size, given.hidden_size)
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("cells", "List the cells, or print the equations of one.")
    made.add_argument("name", metavar="CELL", nargs="?", help="a cell of the library, or of --code")
    made.add_argument(
        "--emit",
        choices=FORMS,
        help="what to print of it: the equations (default), the same as LaTeX, the graph they become, how it is scheduled "
        "over time, the backward step's schedule; of the compiled loop: its program, LLVM's language, assembly code",
    )
    made.add_argument("--backward", action="store_true", help="the backward step's schedule, loop, llvm or asm")
    made.add_argument("--fuse", action="store_true", help="loop, llvm, asm: block by block, as for weights beyond the caches")
    made.add_argument("--cpu", metavar="NAME", help="llvm, asm: for another CPU than this machine's, by LLVM's name")
    made.add_argument("--dtype", choices=("float32", "float64"), help="llvm, asm: the type of numbers [float32]")
    made.add_argument("--code", metavar="FILE.py", help=CODE_HELP)
    made.add_argument("--input_size", metavar="N", type=int, default=128, help="I, for counting parameters [128]")
    made.add_argument("--hidden_size", metavar="N", type=int, default=128, help="H, for counting parameters [128]")
    made.add_argument("--markdown", action="store_true", help="the table and all equations as a page of documentation")
    return made


def table(input_size: int, hidden_size: int) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table of cells."""
    from carousel.cells import CELLS
    from carousel.engines import runnable

    header = ["cell", "year", "states", f"parameters at {input_size}/{hidden_size}", "engines", "what it is", "reference"]
    rows = []
    for name, kind in CELLS.items():
        cell = kind()
        year = re.search(r"\d{4}", kind.reference)
        rows.append(
            [
                name,
                year.group() if year else "",
                ", ".join(kind.state),
                f"{_count(cell, input_size, hidden_size):,}",
                ", ".join(runnable(cell.graph)),
                _first_line(kind),
                kind.reference,
            ]
        )
    return header, rows


def page(input_size: int, hidden_size: int) -> str:
    """The page of documentation: the table, then the equations of every cell, printed from its graph."""
    from carousel.cells import CELLS
    from carousel.graph.printing import latex

    header, rows = table(input_size, hidden_size)
    lines = ["# Cells", "", "Made by `carousel cells --markdown`; the equations are printed from each cell's graph.", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join([f"[`{row[0]}`](#{row[0]})", *row[1:]]) + " |" for row in rows]
    for name, kind in CELLS.items():
        cell = kind()
        lines += ["", f"## {name}", "", f"`carousel.cells.{kind.__name__}`: {_first_line(kind)}. {kind.reference}.", ""]
        lines += ["```math", latex(cell), "```"]
        options = ", ".join(f"`{option}={value!r}`" for option, value in cell.options().items())
        lines += ["", f"Options: {options}."] if options else []
    return "\n".join(lines) + "\n"


def _describe(cell: Cell, input_size: int, hidden_size: int) -> None:
    """What a reader of the paper wants to see: equations, options, parameters with their shapes and starts."""
    from carousel.cells import cell_name
    from carousel.engines import choose
    from carousel.graph.printing import equations
    from carousel.graph.shapes import show

    kind = type(cell)
    title = f"{cell_name(cell)}: {_first_line(kind)}" if _first_line(kind) else cell_name(cell)
    print(title + (f" ({kind.reference})" if kind.reference else ""))
    print()
    print(textwrap.indent(equations(cell), "  "))
    print()
    shapes = cell.parameter_shapes(cell.input_size(input_size), hidden_size)
    rows = [
        [name, show(parameter.shape), " x ".join(map(str, shapes[name])), f"{math.prod(shapes[name]):,}", str(parameter.init)]
        for name, parameter in cell.graph.parameters.items()
    ]
    print_table(["parameter", "shape", f"at {input_size}/{hidden_size}", "numbers", "starts as"], rows)
    print(f"{_count(cell, input_size, hidden_size):,} parameters at input_size {input_size}, hidden_size {hidden_size}")
    for option, value in cell.options().items():
        print(f"option {option} = {value!r}")
    print(f"engine {choose('auto', cell.graph)}")


def _count(cell: Cell, input_size: int, hidden_size: int) -> int:
    """How many numbers a layer learns."""
    shapes = cell.parameter_shapes(cell.input_size(input_size), hidden_size)
    return sum(math.prod(shapes[name]) for name, p in cell.graph.parameters.items() if p.learned)


def _find(name: str | None, code: str | None) -> Cell:
    from carousel.cells import resolve_cell

    if code is None:
        return resolve_cell(str(name))
    from carousel.cli.user_code import load_cell

    return load_cell(code, name)()


def _check_options(given: argparse.Namespace) -> None:
    """An option that would change nothing is a mistake."""
    with_options = {"--backward": ("schedule", "backward", *COMPILED), "--fuse": COMPILED}
    with_options |= dict.fromkeys(("--cpu", "--dtype"), COMPILED[1:])
    for option, forms in with_options.items():
        if getattr(given, option[2:]) and given.emit not in forms:
            got = f"--emit {given.emit}" if given.emit else "no --emit"
            raise ConfigError(explain(f"{option} goes with --emit {', '.join(forms)}.", got=got))


def _emitted(cell: Cell, given: argparse.Namespace) -> str:
    form = str(given.emit)
    if form in COMPILED:
        from carousel.engines.cpu.emit import emit

        options = {"backward": given.backward, "fuse": given.fuse, "cpu": given.cpu, "dtype": given.dtype or "float32"}
        return emit(cell.graph, form, **options)
    from carousel.graph import printing

    found: Callable[[Cell], str] = getattr(printing, "backward" if given.backward else form)
    return found(cell)


def _first_line(kind: type[Cell]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".") if kind.__doc__ else ""
