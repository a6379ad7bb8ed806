"""`carousel info`, `cells`, `tasks`."""

import json

import pytest

import carousel as package
from carousel.cells import CELLS
from carousel.cli import info
from carousel.engines import engines


def test_info_as_json(carousel):
    said = carousel("info", "--json")
    facts = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert list(facts) == ["carousel", "python", "platform", "packages", "cpu", "environment", "engines"]
    assert facts["carousel"] == package.__version__
    assert facts["packages"]["torch"]
    assert facts["cpu"]["usable"] >= 1
    assert [engine["name"] for engine in facts["engines"]] == [engine.name for engine in engines()]
    assert all(engine["reason"] for engine in facts["engines"])


def test_info_in_words_has_a_line_for_every_engine(carousel):
    said = carousel("info").out
    for engine in engines():
        assert f"engine {engine.name}" in said


def test_processor_is_read_as_linux_writes_it(tmp_path):
    x86 = tmp_path / "x86"
    x86.write_text("processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nmodel name\t: B\n")
    assert info._processor_from_proc(x86) == ("A Chip", {"fpu", "avx2", "fma"})
    arm = tmp_path / "arm"
    arm.write_text("processor\t: 0\nFeatures\t: asimd sve\n")
    assert info._processor_from_proc(arm)[1] == {"asimd", "sve"}
    assert info._processor_from_proc(tmp_path / "missing")[1] == frozenset()


def test_cells_lists_every_cell_of_the_library(carousel):
    lines = carousel("cells").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CELLS)


@pytest.mark.parametrize("form", ["equations", "latex", "graph", "schedule", "backward"])
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_prints_in_every_form(carousel, name, form):
    said = carousel("cells", name, "--emit", form)
    assert (said.code, said.err) == (0, "")
    assert len(said.out) > 20


def test_a_cells_page_shows_its_equations(carousel):
    page = [line.strip() for line in carousel("cells", "lstm").out.splitlines()]
    equations = carousel("cells", "lstm", "--emit", "equations").out.splitlines()
    assert len(equations) == 6
    assert set(equations) <= set(page)


def test_own_cell_prints_too(carousel, own_cell):
    assert carousel("cells", "MinimalGatedUnit", "--code", own_cell).code == 0
    assert carousel("cells", "--code", own_cell).code == 0


def test_unknown_cell_and_form_name_the_nearest(carousel):
    assert "unknown cell 'lsmt'. Did you mean 'lstm'?" in carousel("cells", "lsmt").refused()
    assert "invalid choice: 'latx'" in carousel("cells", "lstm", "--emit", "latx").refused()
    assert "--emit prints one cell" in carousel("cells", "--emit", "latex").refused()


def test_tasks_lists_every_task(carousel):
    assert "classify  carousel.tasks.Classifier" in carousel("tasks").out
