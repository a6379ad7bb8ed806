"""The page of cells is generated; a change of a cell changes it."""

from pathlib import Path

from carousel.cli.cells import page

DOCS = Path(__file__).parents[2] / "docs" / "cells.md"


def test_the_page_of_cells_is_what_the_command_prints():
    expected = page(128, 128)
    assert DOCS.read_text(encoding="utf-8") == expected, "run: carousel cells --markdown > docs/cells.md"
