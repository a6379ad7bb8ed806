"""Stacked gates: there and back by their letters."""

import pytest
import torch

from carousel.cells import resolve_cell
from carousel.errors import ShapeError
from carousel.nn.gates import TORCH, named, restack, split, stack, unstack

OPTIONS = {"lstmp": {"proj_size": 2}}
every_layout = pytest.mark.parametrize("name", sorted(TORCH))


def parameters(name):
    shapes = resolve_cell(name, OPTIONS.get(name)).parameter_shapes(3, 4)
    return {found: torch.randn(shape, dtype=torch.float64) for found, shape in shapes.items()}


@pytest.mark.parametrize("axis", [0, 1])
def test_stacking_in_another_order_permutes_the_blocks(axis):
    stacked = torch.randn(12, 12)
    blocks = split(stacked, "ifgo", axis)
    assert list(blocks) == list("ifgo")
    assert torch.equal(stack(blocks, "ifgo", axis), stacked)
    onnx = stack(blocks, "iofg", axis)
    assert torch.equal(onnx.narrow(axis, 3, 3), blocks["o"])
    assert torch.equal(stack(split(onnx, "iofg", axis), "ifgo", axis), stacked)


@every_layout
def test_a_layout_holds_every_parameter_of_its_cell(name):
    assert {part for parts in TORCH[name].values() for part in parts} == set(parameters(name))


@every_layout
def test_restacking_and_unstacking_gives_the_parameters_back(name):
    ours = parameters(name)
    back = unstack(TORCH[name], restack(TORCH[name], ours))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[found], ours[found]) for found in ours)


def test_two_biases_are_summed_and_each_gets_the_whole_gradient():
    stacked = {found: torch.randn(12, requires_grad=True) for found in ("bias_ih", "bias_hh")}
    ours = unstack(TORCH["gru_reset_after"], stacked)
    assert set(ours) == {*named("b", "rzn"), "b_hn"}
    torch.testing.assert_close(ours["b_z"], stacked["bias_ih"][4:8] + stacked["bias_hh"][4:8], rtol=0, atol=0)
    assert torch.equal(ours["b_n"], stacked["bias_ih"][8:])
    assert torch.equal(ours["b_hn"], stacked["bias_hh"][8:])
    ours["b_z"].sum().backward()
    for bias in stacked.values():
        assert bias.grad.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 4


def test_a_tensor_that_cannot_be_cut_is_refused():
    with pytest.raises(ShapeError, match=r"3 stacked gates cannot be cut evenly\.\n.*\(10, 2\).* r z n\n.*a multiple of 3"):
        split(torch.zeros(10, 2), "rzn")
