"""``carousel encode DIR [FILE|-]``: a vector for every record."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carousel.cli.console import say
from carousel.cli.parsing import VerbParser, add_data_options, add_model_options
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["parser", "run"]

EPILOG = """
An .npy file holds an array (records, features) of float32: numpy.load(FILE) in Python. A .jsonl file, and the output
without --out, hold a line {"vector": [...]} for each record. Both are in the order of the records.
"""
SUFFIXES = (".npy", ".jsonl")


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    if given.out is not None and (given.out.suffix not in SUFFIXES or not given.out.parent.is_dir()):
        what = "--out: this is no place for vectors."
        raise ConfigError(explain(what, got=str(given.out), expected="a file .npy or .jsonl in a folder that exists"))

    from carousel.cli.user_code import open_run

    model = open_run(given.directory, code=given.code, cell=given.cell, device=given.device)
    model.read_with(text_field=given.text_field, label_field=given.label_field, column=given.column)
    if given.file == "-" and sys.stdin is not None and sys.stdin.isatty():
        say("Reading records, one a line; end with Ctrl-D.")
    vectors = model.encode(model.read_records(given.file, format=given.format))
    if given.out is None:
        for row in vectors:
            print(_line(row))
        return 0
    _write(given.out, vectors)
    print(f"{given.out}: {vectors.shape[0]} vectors of {vectors.shape[1]} numbers")
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("encode", "Give a vector for every record: what the model's answer is made from.", EPILOG)
    made.add_argument("directory", metavar="DIR", help="the run directory")
    made.add_argument("file", metavar="FILE", nargs="?", default="-", help="the records; - or nothing reads stdin")
    made.add_argument("--out", metavar="FILE", type=Path, help="where to write them: .npy or .jsonl [stdout, JSONL]")
    add_data_options(made)
    add_model_options(made)
    return made


def _line(row: NDArray[np.float32]) -> str:
    return json.dumps({"vector": row.tolist()})


def _write(path: Path, vectors: NDArray[np.float32]) -> None:
    import numpy as np

    from carousel.data import replacing

    with replacing(path) as temporary:
        if path.suffix == ".npy":
            with temporary.open("wb") as stream:
                np.save(stream, vectors, allow_pickle=False)
        else:
            with temporary.open("w", encoding="utf-8", newline="\n") as lines:
                lines.writelines(_line(row) + "\n" for row in vectors)
