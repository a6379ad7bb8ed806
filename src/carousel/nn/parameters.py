"""What one layer of a cell keeps: its parameters, its constants, and the states it learned to start from."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError, unknown_name
from carousel.graph import Initialiser, Parameter, initialiser, minus
from carousel.graph.shapes import Shape, Sizes, concrete

Starts = Mapping[str, Initialiser | str | float]


class CellParameters(nn.Module):
    """One layer of a cell in one direction. Parameters have the names of the equations; constants are buffers.

    Args:
        parameters: what the equations declare.
        states: the axes of each state that starts from learned values, as ``initial_<state>``.
        sizes: the size of each axis letter.
        init: initialisers by name or pattern, instead of the cell's own.
        device: where the tensors are made.
        dtype: their type.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        states: Mapping[str, Shape],
        sizes: Sizes,
        *,
        init: Starts | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self._init = {name: choose_start(name, p.init, init or {}) for name, p in parameters.items()}
        for name, parameter in parameters.items():
            if hasattr(self, name):
                raise ConfigError(f"a parameter cannot be called '{name}': every torch module has something of that name")
            empty = torch.empty(concrete(parameter.shape, sizes), device=device, dtype=dtype)
            if parameter.learned:
                self.register_parameter(name, nn.Parameter(empty))
            else:
                self.register_buffer(name, empty)
        for name, shape in states.items():
            empty = torch.zeros(concrete(shape, sizes), device=device, dtype=dtype)
            self.register_parameter(f"initial_{name}", nn.Parameter(empty))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start everything anew, from torch's generator, in the order of the equations; learned states start at 0."""
        values = self.values()
        for name, start in self._init.items():
            if not isinstance(start, minus):
                start.fill(torch, values[name])
        for name, start in self._init.items():
            if isinstance(start, minus):
                if isinstance(self._init.get(start.other), minus):
                    raise ConfigError(f"{name}: minus('{start.other}') needs values, and '{start.other}' is a minus itself")
                start.copy(values[name], values)
        for name, value in values.items():
            if name.startswith("initial_"):
                value.zero_()

    def values(self) -> dict[str, Tensor]:
        """Parameters and constants by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def extra_repr(self) -> str:
        """The names and shapes."""
        return ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.values().items())


def choose_start(name: str, own: Initialiser, init: Starts) -> Initialiser:
    """The initialiser of a parameter: the one given by its name, else by the first pattern that fits, else the cell's own."""
    if name in init:
        return initialiser(init[name])
    return next((initialiser(start) for pattern, start in init.items() if fnmatchcase(name, pattern)), own)


def check_starts(init: Starts, names: Mapping[str, Parameter], who: str) -> None:
    """Check that every name or pattern is that of a parameter.

    Raises:
        ConfigError: one fits no parameter, or is no initialiser.
    """
    for pattern, start in init.items():
        initialiser(start)
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(unknown_name(f"parameter of {who}", pattern, names))
