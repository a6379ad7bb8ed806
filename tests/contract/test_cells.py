"""One battery for every registered cell: shapes, dtypes, short sequences, configuration, fingerprint, documentation."""

import importlib
import inspect
import json

import pytest
import torch

from carousel.cells import CELLS, cell_name, resolve_cell
from carousel.errors import ConfigError
from carousel.graph import Cell, printing, tanh
from cases import SMALL, every_cell, random_given, tensors

every_name = pytest.mark.parametrize("name", sorted(CELLS))
every_layout = pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (1, True), (2, False), (2, True)])


@every_cell
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_dtypes(case, num_layers, bidirectional, dtype):
    layer = case.layer(num_layers=num_layers, bidirectional=bidirectional, dtype=dtype)
    given = random_given(layer, 4, 3, dtype=dtype)
    output, final = given.call(layer, torch.tensor([4, 1, 3]))
    assert output.shape[:3] == (4, 3, layer.output_size)
    assert output.dtype == dtype
    assert torch.isfinite(output).all()
    for part, start in zip(tensors(final), tensors(given.state), strict=True):
        assert (part.shape, part.dtype) == (start.shape, start.dtype)
    output.sum().backward()
    without = [n for n, p in layer.named_parameters() if p.grad is None]
    assert not without


@every_cell
@every_layout
@pytest.mark.parametrize("steps", [0, 1])
def test_sequences_of_no_and_of_one_step(case, num_layers, bidirectional, steps):
    layer = case.layer(num_layers=num_layers, bidirectional=bidirectional)
    given = random_given(layer, steps, 2)
    output, final = given.call(layer)
    assert output.shape[:3] == (steps, 2, layer.output_size)
    for part, start in zip(tensors(final), tensors(given.state), strict=True):
        assert torch.equal(part, start) == (steps == 0)


@every_cell
def test_one_step_and_a_sequence_of_one_step_are_the_same(case):
    layer = case.layer(num_layers=2)
    given = random_given(layer, 1, 2)
    output, final = given.call(layer)
    stepped, state = given.step(layer, 0, given.state)
    assert torch.equal(stepped, output[0])
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), tensors(final), strict=True))


@every_name
def test_configuration_round_trip(name):
    cell = resolve_cell(name, SMALL.get(name))
    options = json.loads(json.dumps(cell.options()))
    assert resolve_cell(name, options) == cell
    assert type(cell)(**options) == cell
    assert resolve_cell(type(cell), options) == cell
    assert resolve_cell(cell) is cell
    assert cell_name(cell) == cell_name(type(cell)) == name
    assert repr(cell) == f"{type(cell).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


@every_name
def test_an_unknown_option_is_an_error(name):
    with pytest.raises(ConfigError, match="frobnicate"):
        resolve_cell(name, {"frobnicate": 1})


@every_name
def test_fingerprint_is_that_of_the_equations(name):
    cell = resolve_cell(name)
    assert cell.fingerprint == CELLS[name]().fingerprint
    starts = {"forget_bias", "scale", "input_std", "transform_bias"} & set(cell.options())
    for option in starts:  # how parameters start is no part of the equations
        assert resolve_cell(name, {option: 0.125}).fingerprint == cell.fingerprint


def test_fingerprints_differ_where_equations_do():
    # An IRNN is an Elman network of rectified units that starts elsewhere.
    prints = {name: CELLS[name]().fingerprint for name in CELLS}
    assert len(set(prints.values())) == len(prints)
    assert resolve_cell("elman", {"activation": "relu"}).fingerprint == prints["irnn"]
    assert resolve_cell("elman", {"activation": "sigmoid"}).fingerprint != prints["elman"]
    assert resolve_cell("peephole_lstm", {"output_gate": "old"}).fingerprint != prints["peephole_lstm"]
    assert resolve_cell("jordan", {"trace": 0.5}).fingerprint != prints["jordan"]
    assert resolve_cell("jordan", {"trace": 0.5}).fingerprint != resolve_cell("jordan", {"trace": 0.25}).fingerprint


def cell_of(step):
    return type("Own", (Cell,), {"step": step})()


def test_fingerprint_sees_names_order_and_operands_but_not_variables():
    base = cell_of(lambda self, x, h: tanh(self.affine("h", x, h)))
    same = cell_of(lambda self, x, h: tanh(self.affine("h", x, h)))
    assert base.fingerprint == same.fingerprint

    def with_a_variable(self, x, h):
        drive = self.affine("h", x, h)
        return tanh(drive)

    assert cell_of(with_a_variable).fingerprint == base.fingerprint
    for other in (
        lambda self, x, h: tanh(self.affine("g", x, h)),
        lambda self, x, h: tanh(self.affine("h", x, h, bias=False)),
        lambda self, x, h: tanh(self.affine("h", h, x)),
        lambda self, x, h: 0.5 * tanh(self.affine("h", x, h)),
        lambda self, x, h: tanh(self.affine("h", x, h)) - h,
        lambda self, x, h: h - tanh(self.affine("h", x, h)),
    ):
        assert cell_of(other).fingerprint != base.fingerprint


def test_running_and_planning_do_not_change_the_fingerprint():
    layer = importlib.import_module("cases").random_layer("gru")
    before = resolve_cell("gru").fingerprint
    random_given(layer, 2, 2).call(layer)
    printing.backward(layer.cell)
    assert layer.cell.fingerprint == before


@every_name
def test_documented_with_equations_and_a_reference(name):
    kind = CELLS[name]
    doc = inspect.getdoc(kind)
    assert ".. math::" in doc
    assert "References:" in doc
    assert kind.reference
    assert kind.state
    assert doc.splitlines()[0].endswith(".")
    for option in kind().options():
        assert f"    {option}: " in doc, f"the option {option} is not documented"


@every_name
def test_has_a_transcription_of_its_paper(name):
    oracle = importlib.import_module(f"oracles.{name}")
    assert callable(oracle.run)
    assert "=" in oracle.__doc__


@every_name
def test_every_way_to_print_works(name):
    cell = resolve_cell(name)
    for text in (printing.equations, printing.latex, printing.graph, printing.schedule, printing.backward):
        assert text(cell).strip()
