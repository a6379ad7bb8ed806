"""Simple recurrent networks: Elman's, Jordan's, and the rectified one that starts as the identity."""

from __future__ import annotations

from carousel.graph import Cell, Output, activation, constant, identity, normal, relu
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
