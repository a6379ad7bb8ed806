"""Recurrent highway networks: several layers between one step and the next."""

from __future__ import annotations

from carousel.graph import Cell, constant, sigmoid, tanh
from carousel.graph.symbol import Symbol


class RHN(Cell):
    r"""A recurrent highway network: the transition from step to step is itself deep.

    .. math::
        s^0 &= h_{t-1} \\
        n^l &= \tanh([l = 1]\, W_n x_t + U_{nl} s^{l-1} + b_{nl}) \\
        t^l &= \sigma([l = 1]\, W_t x_t + U_{tl} s^{l-1} + b_{tl}) \\
        s^l &= n^l \odot t^l + s^{l-1} \odot (1 - t^l), \qquad h_t = s^L

    The carry gate is coupled to the transform gate t, as in the paper's experiments.

    Args:
        depth: L.
        transform_bias: where b_t starts; negative values let a new network carry.

    References:
        Zilly, Srivastava, Koutník, Schmidhuber (2017), "Recurrent Highway Networks", arXiv:1607.03474.
    """

    state = ("h",)
    reference = "Zilly et al. 2017"
    candidate = "n"
    depth: int = 3
    transform_bias: float = -2.0

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        s = h
        for layer in range(1, self.depth + 1):
            candidate = self.dense(f"U_n{layer}", s) + self.vector(f"b_n{layer}")
            transform = self.dense(f"U_t{layer}", s) + self.vector(f"b_t{layer}", init=constant(self.transform_bias))
            if layer == 1:
                candidate, transform = self.dense("W_n", x) + candidate, self.dense("W_t", x) + transform
            n, t = tanh(candidate), sigmoid(transform)
            s = n * t + s * (1 - t)
        return s
