"""How parameters start: named, printable, and the same for the same seed.

Every initialiser fills a tensor in place from torch's generator. Fans are those of one gate's matrix (out, in), not of the
gates stacked, so a cell with more gates does not start smaller.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from carousel.errors import ConfigError, ShapeError, unknown_name


class Initialiser(ABC):
    """Fills a tensor with a parameter's first values. Subclasses are frozen dataclasses, so they compare and print."""

    @abstractmethod
    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill `tensor` (out, in) or (out,) in place; `generator` is torch's default when None.

        The module `torch` is handed in: this package imports no tensor library.
        """


@dataclass(frozen=True)
class constant(Initialiser):  # noqa: N801 - these read as functions where a cell uses them
    """Every value the same: a forget bias of 1, say."""

    value: float

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place."""
        tensor.fill_(self.value)


@dataclass(frozen=True)
class uniform(Initialiser):  # noqa: N801
    """Uniform in [-bound, bound]; without a bound, 1/sqrt(out), as torch starts its recurrent layers."""

    bound: float | None = None

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place."""
        bound = self.bound if self.bound is not None else 1 / math.sqrt(max(tensor.shape[0], 1))
        tensor.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class normal(Initialiser):  # noqa: N801
    """Normal with mean 0 and standard deviation `std`."""

    std: float = 0.01

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place."""
        tensor.normal_(0.0, self.std, generator=generator)


@dataclass(frozen=True)
class glorot(Initialiser):  # noqa: N801
    """Uniform in ±gain·sqrt(6 / (in + out)): keeps variances across a layer (Glorot & Bengio 2010)."""

    gain: float = 1.0

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place."""
        fans = _fans(tensor.shape)
        bound = self.gain * math.sqrt(6 / max(fans, 1))
        tensor.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class orthogonal(Initialiser):  # noqa: N801
    """A random orthogonal matrix: it keeps the length of what it multiplies (Saxe et al. 2014)."""

    gain: float = 1.0

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place.

        Raises:
            ShapeError: the tensor is neither a matrix nor blocks of matrices.
        """
        if tensor.dim() not in (2, 3):
            raise ShapeError(f"orthogonal() fills matrices; this parameter has shape {tuple(tensor.shape)}")
        for matrix in tensor if tensor.dim() == 3 else [tensor]:
            if matrix.numel():
                wide = torch.promote_types(matrix.dtype, torch.float32)  # torch has no QR in half precision
                exact = torch.empty_like(matrix, dtype=wide)
                matrix.copy_(torch.nn.init.orthogonal_(exact, self.gain, generator=generator))


@dataclass(frozen=True)
class identity(Initialiser):  # noqa: N801
    """The identity, scaled: the unit then copies its state (Le, Jaitly, Hinton 2015)."""

    scale: float = 1.0

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place.

        Raises:
            ShapeError: the tensor is not a square matrix.
        """
        if tensor.dim() != 2 or tensor.shape[0] != tensor.shape[1]:
            raise ShapeError(f"identity() fills square matrices; this parameter has shape {tuple(tensor.shape)}")
        tensor.zero_()
        tensor.diagonal().fill_(self.scale)


@dataclass(frozen=True)
class chrono(Initialiser):  # noqa: N801
    """Forget biases for memories of all lengths up to `longest` steps: log of a uniform number in [1, longest - 1].

    With its negative for the input gate, as in the paper: ``init={"b_f": chrono(T), "b_i": minus("b_f")}``
    (Tallec & Ollivier 2018, "Can Recurrent Neural Networks Warp Time?", arXiv:1804.11188).

    Args:
        longest: the longest dependence expected, in steps; more than 2.
    """

    longest: float

    def __post_init__(self) -> None:
        if not self.longest > 2:
            raise ConfigError(f"chrono: the longest dependence must be more than 2 steps, got {self.longest}")

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Fill in place."""
        tensor.uniform_(1.0, self.longest - 1.0, generator=generator).log_()


@dataclass(frozen=True)
class minus(Initialiser):  # noqa: N801
    """Minus another parameter of the same layer, once that one has its values.

    Args:
        other: the other parameter's name.
    """

    other: str

    def fill(self, torch: Any, tensor: Any, generator: Any = None) -> None:
        """Needs the other's values: :meth:`copy` is called instead.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"minus('{self.other}') needs the other parameter: use it in init= of a layer")

    def copy(self, tensor: Any, values: Mapping[str, Any]) -> None:
        """Fill in place, from the values of the layer's parameters.

        Raises:
            ConfigError: there is no such parameter.
        """
        if self.other not in values:
            raise ConfigError(unknown_name("parameter", self.other, values))
        if values[self.other].shape != tensor.shape:
            shapes = f"{tuple(values[self.other].shape)}, not {tuple(tensor.shape)}"
            raise ShapeError(f"minus('{self.other}') fills parameters of its shape; it has {shapes}")
        tensor.copy_(-values[self.other])


def _fans(shape: Any) -> int:
    """In plus out, of a vector, a matrix, blocks of matrices (N, out, in) or a kernel (out, in, K, K)."""
    if len(shape) < 2:
        return int(shape[0]) * 2
    if len(shape) == 4:
        return int((shape[0] + shape[1]) * shape[2] * shape[3])
    return int(shape[-1] + shape[-2])


def zeros() -> Initialiser:
    """Every value 0."""
    return constant(0.0)


def ones() -> Initialiser:
    """Every value 1."""
    return constant(1.0)


INITIALISERS = {f.__name__: f for f in (chrono, constant, glorot, identity, normal, ones, orthogonal, uniform, zeros)}


_NEED_NUMBER = {
    "constant": "give the number itself, for example 1.0",
    "chrono": "give carousel.graph.chrono(T), T the longest dependence in steps",
}


def initialiser(spec: Initialiser | str | float) -> Initialiser:
    """Turn a name, a number or an initialiser into an initialiser.

    Raises:
        ConfigError: the name is unknown, or the name needs a number.

    Example:
        >>> initialiser("orthogonal"), initialiser(1.0)
        (orthogonal(gain=1.0), constant(value=1.0))
    """
    if isinstance(spec, Initialiser):
        return spec
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        return constant(float(spec))
    if not isinstance(spec, str) or spec not in INITIALISERS:
        raise ConfigError(unknown_name("initialiser", str(spec), INITIALISERS))
    if spec in _NEED_NUMBER:
        raise ConfigError(f"the initialiser '{spec}' needs its number: {_NEED_NUMBER[spec]}")
    return cast("Callable[[], Initialiser]", INITIALISERS[spec])()
