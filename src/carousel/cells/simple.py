"""Simple recurrent networks: one layer of units that sees itself, or what it said, a step ago."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from carousel.errors import ConfigError
from carousel.graph import (
    Cell,
    Initialiser,
    Output,
    activation,
    constant,
    equal,
    identity,
    normal,
    ones,
    orthogonal,
    product,
    relu,
    remainder,
    sigmoid,
    tanh,
    where,
)
from carousel.graph.symbol import Symbol


class Elman(Cell):
    r"""The simple recurrent network: the hidden units see the input and themselves one step ago.

    .. math:: h_t = f(W_h x_t + U_h h_{t-1} + b_h)

    Differs from the paper: Elman's units were logistic (``activation="sigmoid"``), and his readout is a layer of its own.

    Args:
        activation: f, the name of an activation function.

    References:
        Elman (1990), "Finding Structure in Time", Cognitive Science 14.
    """

    state = ("h",)
    reference = "Elman 1990"
    candidate = "h"
    activation: str = "tanh"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        f = activation(self.activation)
        return f(self.affine("h", x, h))


class IRNN(Cell):
    r"""Rectified linear units whose recurrent matrix starts as the identity: untrained, it remembers.

    .. math:: h_t = \max(0, W_h x_t + U_h h_{t-1} + b_h), \qquad U_h = s\,I \text{ at the start}

    Args:
        scale: s; the paper takes 1 for long memory and 0.01 where little is needed.
        input_std: the standard deviation of W at the start; the paper's is 0.001.

    References:
        Le, Jaitly, Hinton (2015), "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
        arXiv:1504.00941.
    """

    state = ("h",)
    reference = "Le, Jaitly, Hinton 2015"
    candidate = "h"
    scale: float = 1.0
    input_std: float = 0.001

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        return relu(self.affine("h", x, h, W=normal(self.input_std), U=identity(self.scale), b=constant(0.0)))


class Jordan(Cell):
    r"""Feeds back its output: the context units hold what the network last said, not what it last thought.

    .. math::
        u_t &= f(W_h x_t + U_h s_{t-1} + b_h) \\
        y_t &= g(W_y u_t + b_y) \\
        s_t &= \mu s_{t-1} + y_t

    The output is y, with as many units as u. Differs from the paper: its plan units are part of the input here, and its
    trace is off (s is the last output) unless asked for.

    Args:
        activation: f, of the hidden units.
        output_activation: g, of the output units; ``softmax`` for a distribution.
        trace: μ, how much of its old self the context keeps.

    References:
        Jordan (1986), "Serial Order: A Parallel Distributed Processing Approach", ICS report 8604.
    """

    state = ("s",)
    reference = "Jordan 1986"
    candidate = "u"
    activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    trace: float = 0.0

    def step(self, x: Symbol, s: Symbol) -> tuple[Output, Symbol]:
        """One step."""
        f, g = activation(self.activation), activation(self.output_activation)
        u = f(self.affine("h", x, s))
        y = g(self.affine("y", u))
        s = self.trace * s + y if self.trace else y
        return Output(y), s


class IndRNN(Cell):
    r"""Each unit remembers itself only: the recurrent matrix is a vector.

    .. math:: h_t = f(W_h x_t + u_h \odot h_{t-1} + b_h)

    Args:
        activation: f; the paper's is relu.

    References:
        Li et al. (2018), "Independently Recurrent Neural Network (IndRNN)", arXiv:1803.04831.
    """

    state = ("h",)
    reference = "Li et al. 2018"
    candidate = "h"
    activation: str = "relu"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        f = activation(self.activation)
        return f(self.affine("h", x) + self.vector("u_h", init=ones()) * h)


class FastGRNN(Cell):
    r"""A gated unit whose gate and candidate share their matrices: a quarter of an LSTM's parameters.

    .. math::
        a &= W x_t + U h_{t-1} \\
        z_t &= \sigma(a + b_z) \\
        n_t &= \tanh(a + b_n) \\
        h_t &= (\sigma(\zeta)(1 - z_t) + \sigma(\nu)) \odot n_t + z_t \odot h_{t-1}

    Differs from the paper: W and U have full rank.

    References:
        Kusupati et al. (2018), "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated Recurrent Neural
        Network", arXiv:1901.02358.
    """

    state = ("h",)
    reference = "Kusupati et al. 2018"
    candidate = "n"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        a = self.dense("W", x) + self.dense("U", h)
        z = sigmoid(a + self.vector("b_z", init=ones()))
        n = tanh(a + self.vector("b_n", init=ones()))
        zeta = sigmoid(self.parameter("zeta", (1,), init=constant(1.0)))
        nu = sigmoid(self.parameter("nu", (1,), init=constant(-4.0)))
        return (zeta * (1 - z) + nu) * n + z * h


class ClockworkRNN(Cell):
    r"""Modules that tick at different speeds; a module sees itself and the slower ones.

    .. math::
        u_t &= \tanh(W_h x_t + (M \odot U_h) h_{t-1} + b_h) \\
        h_t &= \begin{cases} u_t & t \bmod T_g = 0 \\ h_{t-1} & \text{else} \end{cases}

    Units are cut into `modules` groups of equal size, group g with period :math:`T_g = 2^g`. M is 1 where a unit reads
    from a group as slow as its own or slower.

    Args:
        modules: the number of groups; it divides the hidden size.

    References:
        Koutník, Greff, Gomez, Schmidhuber (2014), "A Clockwork RNN", arXiv:1402.3511.
    """

    state = ("h",)
    reference = "Koutník et al. 2014"
    candidate = "u"
    modules: int = 4

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        period = self.parameter("period", ("H",), init=_Periods(self.modules), learned=False)
        reads = self.parameter("reads", ("H", "H"), init=_Slower(self.modules), learned=False)
        matrix = reads * self.parameter("U_h", ("H", "H"), init=orthogonal())
        u = tanh(self.affine("h", x) + product(matrix, h))
        active = equal(remainder(self.time(), period), 0.0)
        return where(active, u, h)


def _groups(torch: Any, size: int, modules: int) -> Any:
    if size % modules:
        raise ConfigError(
            f"ClockworkRNN: {modules} modules of equal size need a hidden size that {modules} divides, got {size}"
        )
    return torch.arange(size) // (size // modules)


@dataclass(frozen=True)
class _Periods(Initialiser):
    """The period of each unit: 1 for the first group, 2 for the second, then 4, 8, ..."""

    modules: int

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:  # noqa: ARG002 - nothing is drawn
        """Fill in place."""
        tensor.copy_(2.0 ** _groups(torch, tensor.shape[0], self.modules))


@dataclass(frozen=True)
class _Slower(Initialiser):
    """1 where the unit of the row may read from the unit of the column."""

    modules: int

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:  # noqa: ARG002 - nothing is drawn
        """Fill in place."""
        group = _groups(torch, tensor.shape[0], self.modules)
        tensor.copy_(group[None] >= group[:, None])
