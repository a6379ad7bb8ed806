"""`carousel info`, `cells`, `tasks`."""

import json
import re

import pytest

import carousel as package
from carousel.cells import CELLS
from carousel.cli import info
from carousel.engines import engines
from carousel.engines.cpu.target import target


def test_info_as_json(carousel):
    said = carousel("info", "--json")
    facts = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert list(facts) == ["carousel", "python", "platform", "packages", "cpu", "environment", "kernels", "engines"]
    assert facts["carousel"] == package.__version__
    assert facts["packages"]["torch"]
    assert facts["cpu"]["usable"] >= 1
    assert [engine["name"] for engine in facts["engines"]] == [engine.name for engine in engines()]
    assert all(engine["reason"] for engine in facts["engines"])
    assert facts["kernels"]["cpu"] == str(target())
    assert set(facts["kernels"]["cache"]) == {"path", "files", "bytes"}


def test_info_tells_the_cpu_that_code_is_written_for_and_what_is_kept(carousel, monkeypatch, tmp_path):
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path))
    (tmp_path / "some.code").write_bytes(b"x" * 2**20)
    said = carousel("info").out
    assert f"{target()}" in said
    assert f"{tmp_path}: 1 files, 1.0 MB" in said
    assert re.search(rf"CAROUSEL_CACHE +{tmp_path}\n", said)
    monkeypatch.setenv("CAROUSEL_CACHE", "off")
    assert re.search(r"code kept in +nowhere", carousel("info").out)


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


@pytest.mark.parametrize("form", ["loop", "llvm", "asm"])
@pytest.mark.parametrize("name", ["elman", "attention_gru"])
def test_what_is_compiled_prints_too(carousel, name, form):
    said = carousel("cells", name, "--emit", form)
    assert (said.code, said.err) == (0, "")
    start = {"loop": "where rows lie:", "llvm": "; ModuleID", "asm": "\t."}[form]
    assert said.out.startswith(start)
    behind = carousel("cells", name, "--emit", form, "--backward")
    assert behind.out.startswith(start)
    assert behind.out != said.out


def test_code_for_another_cpu_and_type(carousel):
    out = carousel("cells", "gru", "--emit", "asm", "--cpu", "haswell", "--dtype", "float64").out
    assert "%ymm" in out
    assert "%zmm" not in out
    assert "fmul" in carousel("cells", "gru", "--emit", "asm", "--cpu", "apple-m1").out
    assert "block by block" in carousel("cells", "gru", "--emit", "loop", "--fuse").out


def test_the_backward_step_by_either_spelling(carousel):
    words = carousel("cells", "gru", "--emit", "backward").out
    assert words == carousel("cells", "gru", "--emit", "schedule", "--backward").out
    assert words == carousel("cells", "gru", "--emit", "backward", "--backward").out


def test_options_that_would_change_nothing_are_refused(carousel):
    assert "--backward goes with --emit schedule" in carousel("cells", "gru", "--backward").refused()
    assert "--backward goes with" in carousel("cells", "gru", "--emit", "latex", "--backward").refused()
    assert "--fuse goes with" in carousel("cells", "gru", "--emit", "graph", "--fuse").refused()
    assert "--cpu goes with --emit llvm, asm" in carousel("cells", "gru", "--emit", "loop", "--cpu", "haswell").refused()
    assert "--dtype goes with" in carousel("cells", "--dtype", "float64").refused()


def test_what_cannot_be_compiled_says_why(carousel):
    for form in ("loop", "llvm", "asm"):
        message = carousel("cells", "conv_lstm", "--emit", form).refused()
        assert "ConvLSTM cannot be compiled" in message
        assert "Convolution" in message
    assert (
        "unknown CPU 'haswel'. Did you mean 'haswell'?"
        in carousel("cells", "gru", "--emit", "asm", "--cpu", "haswel").refused()
    )


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
