"""Node kinds are an open set: three new ones, made here, are traced, scheduled, differentiated and run; src knows none."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from carousel.errors import CellError
from carousel.graph import Cell, Output, glorot, printing, reshape, sigmoid, tanh
from carousel.graph.differentiate import plan
from carousel.graph.kinds import Hoisting, Kind, TotalKind
from carousel.graph.schedule import Section, schedule
from carousel.graph.shapes import ShapeProblem, show
from cases import a_call, call_layer, leaves, random_layer, random_state
from interpreter import autograd, naive, scheduled

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # float64, sums in another order


@dataclass(frozen=True)
class OuterProduct(Kind):
    """u v^T of two vectors of a row."""

    def shape(self, *args):
        u, v = args
        if len(u.shape) != 1 or len(v.shape) != 1:
            raise ShapeProblem(f"an outer product takes two vectors, not {show(u.shape)} and {show(v.shape)}")
        return (*u.shape, *v.shape)

    def adjoint(self, args, value, gradient):  # noqa: ARG002
        u, v = args
        return MatrixVector().on(gradient, v), MatrixVector(transposed=True).on(gradient, u)

    def on(self, u, v):
        return u.builder.apply(self, u, v)

    def eager(self, on, *values):
        return on.torch.einsum("...i,...j->...ij", *values)

    def text(self, *args):
        return f"{args[0]} ⊗ {args[1]}"


@dataclass(frozen=True)
class MatrixVector(Kind):
    """A product in which each row of the batch brings its own matrix. Worth hoisting, never stacked."""

    transposed: bool = False
    hoisting: ClassVar[Hoisting] = Hoisting.PRODUCT

    @property
    def cost(self):
        return 1e9

    def shape(self, *args):
        matrix, vector = args
        out, inside = matrix.shape[::-1] if self.transposed else matrix.shape
        if vector.shape != (inside,):
            raise ShapeProblem(f"a matrix {show(matrix.shape)} does not fit a vector {show(vector.shape)}")
        return (out,)

    def on(self, matrix, vector):
        return matrix.builder.apply(self, matrix, vector)

    def adjoint(self, args, value, gradient):  # noqa: ARG002
        matrix, vector = args
        pair = (vector, gradient) if self.transposed else (gradient, vector)
        return OuterProduct().on(*pair), MatrixVector(not self.transposed).on(matrix, gradient)

    def eager(self, on, *values):
        matrix, vector = values
        return on.torch.einsum("...ji,...j->...i" if self.transposed else "...ij,...j->...i", matrix, vector)

    def text(self, *args):
        return f"{args[0]}{'ᵀ' if self.transposed else ''} @ {args[1]}"


@dataclass(frozen=True)
class Conv(Kind):
    """A convolution over the last axis with a learned kernel of odd length, the ends padded with zeros."""

    flipped: bool = False
    hoisting: ClassVar[Hoisting] = Hoisting.PRODUCT

    @property
    def cost(self):
        return 1e9

    def shape(self, *args):
        kernel, signal = args
        if len(kernel.shape) != 1 or kernel.rows or len(signal.shape) != 1:
            raise ShapeProblem("a convolution takes a learned kernel and a vector")
        return signal.shape

    def on(self, kernel, signal):
        return signal.builder.apply(self, kernel, signal)

    def adjoint(self, args, value, gradient):  # noqa: ARG002
        kernel, signal = args
        pair = (gradient, signal) if self.flipped else (signal, gradient)
        return TotalConv(kernel.shape).on(*pair), Conv(not self.flipped).on(kernel, gradient)

    def eager(self, on, *values):
        kernel, signal = values
        if self.flipped:
            kernel = kernel.flip(0)
        rows = signal.reshape(-1, 1, signal.shape[-1])
        return on.torch.nn.functional.conv1d(rows, kernel[None, None], padding=kernel.shape[0] // 2).reshape(signal.shape)

    def text(self, *args):
        return f"{args[0]} * {args[1]}"


@dataclass(frozen=True)
class TotalConv(TotalKind):
    """The kernel's gradient, summed over rows and steps: the correlation of the signal with the gradient."""

    axes: tuple = ()
    hoisting: ClassVar[Hoisting] = Hoisting.PRODUCT

    def shape(self, *args):  # noqa: ARG002
        return self.axes

    def on(self, signal, gradient):
        return signal.builder.apply(self, signal, gradient)

    def eager(self, on, *values):
        signal, gradient = values
        [size] = [on.sizes[axis] if isinstance(axis, str) else axis for axis in self.axes]
        windows = on.torch.nn.functional.pad(signal, (size // 2, size // 2)).unfold(-1, signal.shape[-1], 1)  # (R, K, H)
        return on.torch.einsum("rkh,rh->k", windows, gradient)

    def text(self, *args):
        return f"sum_t({args[0]} ⋆ {args[1]})"


class FastWeights(Cell):
    """A matrix as state, written by outer products and read by products of each row's own."""

    state = ("h", "M")
    shapes = {"M": ("H", "K")}  # noqa: RUF012

    def step(self, x, h, M):
        k, v, q = tanh(self.affine("k", x, size="K")), tanh(self.affine("v", x, h)), self.affine("q", x, h, size="K")
        gate = reshape(sigmoid(self.affine("g", x, h, size=1)), 1, 1)
        M = gate * M + OuterProduct().on(v, k)
        return tanh(MatrixVector().on(M, q) + self.dense("U", h)), M

    def sizes(self, input_size, hidden_size):
        return {"I": input_size, "H": hidden_size, "K": 2}


class Convolved(Cell):
    """Convolutions of the input, the state, and for the output: before the loop, in it, and after."""

    def step(self, x, h):
        k, m, n = (self.parameter(name, (3,), init=glorot()) for name in "kmn")
        drive = self.dense("W", Conv().on(k, x))
        h = tanh(drive + Conv().on(m, h) * h + Conv(flipped=True).on(k, h))
        return Output(Conv().on(n, h)), h


class Bilinear(Cell):
    """A matrix per row made of the input alone, and applied to the state."""

    def step(self, x, h):
        u = tanh(self.affine("u", x, size="H"))
        own = OuterProduct().on(u, self.dense("w", x))
        return tanh(MatrixVector().on(own, h) + self.vector("b"))


OWN = [FastWeights, Convolved, Bilinear]


@pytest.mark.parametrize("cell", OWN)
def test_scheduled_naive_and_autograd_agree(cell):
    layer = random_layer(cell, 4, 4)
    step, call = layer.cell.graph, a_call(layer, 5, 3)
    expected = autograd(step, call)
    for got in (scheduled(step, call), naive(step, call)):
        torch.testing.assert_close(got.output, expected.output, **CLOSE)
        for part in ("final", "inputs", "states", "parameters"):
            for name, wanted in getattr(expected, part).items():
                torch.testing.assert_close(getattr(got, part)[name], wanted, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(call_layer(layer, call)[0], expected.output, **CLOSE)


@pytest.mark.parametrize("cell", OWN)
def test_gradcheck_ragged_and_backwards(cell):
    layer = random_layer(cell, 4, 4, bidirectional=True)
    lengths = torch.tensor([3, 0, 2])
    given = leaves(torch.randn(3, 3, 4, dtype=torch.float64), *random_state(layer, 3))

    def function(x, *state):
        output, final = layer(x, state, lengths)
        return output, *final

    assert gradcheck(function, given, atol=1e-7, rtol=1e-6, fast_mode=True)
    assert gradgradcheck(function, given, atol=1e-6, rtol=1e-5, fast_mode=True)


def products(cut, section, kind):
    return [n for stage in cut.sections[section] for group in stage.groups for n in group.nodes if isinstance(n.kind, kind)]


def test_a_convolution_is_hoisted_runs_in_the_loop_and_waits():
    both = plan(Convolved().graph)
    forward, backward = schedule(both.forward), schedule(both.backward)
    assert [len(products(forward, s, Conv)) for s in (Section.BEFORE, Section.LOOP, Section.AFTER)] == [1, 2, 1]
    assert not products(backward, Section.LOOP, TotalConv)
    assert len(products(backward, Section.AFTER, TotalConv)) == 4


def test_new_kinds_are_never_grouped_unless_they_say_how():
    for cell in OWN:
        both = plan(cell().graph)
        for cut in (schedule(both.forward), schedule(both.backward)):
            groups = [group for stages in cut.sections.values() for stage in stages for group in stage.groups]
            assert all(len(g.nodes) == 1 for g in groups if isinstance(g.nodes[0].kind, MatrixVector | Conv | TotalConv))


def test_a_product_with_a_matrix_of_the_input_is_made_before_the_loop_only_if_it_can_be():
    forward = schedule(plan(Bilinear().graph).forward)
    assert len(products(forward, Section.LOOP, MatrixVector)) == 1
    assert not products(forward, Section.BEFORE, MatrixVector)


def test_new_kinds_print_and_count_in_the_fingerprint():
    assert "⊗" in printing.equations(FastWeights())
    assert "⊗" in printing.graph(FastWeights())
    assert printing.backward(Convolved()).count("⋆") == 4

    class Flipped(Convolved):
        def step(self, x, h):
            k, m, n = (self.parameter(name, (3,), init=glorot()) for name in "kmn")
            drive = self.dense("W", Conv(flipped=True).on(k, x))
            h = tanh(drive + Conv().on(m, h) * h + Conv(flipped=True).on(k, h))
            return Output(Conv().on(n, h)), h

    assert Flipped().fingerprint != Convolved().fingerprint


def test_a_new_kinds_shape_rule_names_the_cells_line():
    class Wrong(Cell):
        def step(self, x, h):
            return OuterProduct().on(h, OuterProduct().on(x, h))

    with pytest.raises(CellError, match=r"(?s)an outer product takes two vectors, not \(H\) and \(I, H\).*the values here"):
        _ = Wrong().graph
