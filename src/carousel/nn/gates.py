"""How other programs stack a cell's gates into a few tensors, spelled by the letters of the gates.

A layout says, for each stacked tensor, which of the cell's parameters are its blocks along the first axis, in order. Two
tensors may hold the same parameter: the cell's is then their sum, which is how torch's two biases for a gate become one.
Whoever brings weights from elsewhere writes a layout and uses :func:`unstack` and :func:`restack`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from carousel.errors import ShapeError, explain

#: The blocks of each stacked tensor, by the cell's names for them.
Layout = Mapping[str, tuple[str, ...]]


def named(kind: str, gates: str) -> tuple[str, ...]:
    """Name one parameter for each gate.

    Example:
        >>> named("W", "rzn")
        ('W_r', 'W_z', 'W_n')
    """
    return tuple(f"{kind}_{gate}" for gate in gates)


def _torch(gates: str) -> dict[str, tuple[str, ...]]:
    """What torch keeps for a cell, in the order of its parameters."""
    return {
        "weight_ih": named("W", gates),
        "weight_hh": named("U", gates),
        "bias_ih": named("b", gates),
        "bias_hh": named("b", gates),
    }


#: torch's stacked tensors, without the number of their layer, by the name of the cell in :data:`carousel.cells.CELLS`.
TORCH: dict[str, Layout] = {
    "elman": _torch("h"),
    # r multiplies the second bias of n, so that one stays apart.
    "gru_reset_after": {**_torch("rzn"), "bias_hh": (*named("b", "rz"), "b_hn")},
    "lstm": _torch("ifgo"),
    "lstmp": {**_torch("ifgo"), "weight_hr": ("W_p",)},
}


def split(stacked: Tensor, gates: Sequence[str], axis: int = 0) -> dict[str, Tensor]:
    """Cut a stacked tensor into its gates.

    Args:
        stacked: blocks of one size along `axis`; any dtype and device. The blocks are views of it.
        gates: a letter for each block, in order.
        axis: along which they are stacked.

    Returns:
        The blocks by letter.

    Raises:
        ShapeError: the axis cannot be cut into so many blocks.

    Gradients:
        Exact, of any order.

    Example:
        >>> {gate: block.tolist() for gate, block in split(torch.arange(6), "rzn").items()}
        {'r': [0, 1], 'z': [2, 3], 'n': [4, 5]}
    """
    return dict(zip(gates, _cut(stacked, gates, axis), strict=True))


def stack(blocks: Mapping[str, Tensor], gates: Sequence[str], axis: int = 0) -> Tensor:
    """Stack gates into one tensor, in the order of their letters: the inverse of :func:`split`.

    Args:
        blocks: a tensor for each gate.
        gates: the letters, in the order wanted.
        axis: along which they are stacked.

    Example:
        >>> stack(split(torch.arange(6), "rzn"), "zrn").tolist()  # Keras's order of the same gates
        [2, 3, 0, 1, 4, 5]
    """
    return torch.cat([blocks[gate] for gate in gates], axis)


def unstack(layout: Layout, stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn stacked tensors into a cell's parameters; a parameter found more than once is the sum of what was found.

    Args:
        layout: the blocks of each stacked tensor.
        stacked: some or all of the tensors of the layout.

    Returns:
        The cell's parameters by name; only those that the given tensors hold.

    Raises:
        ShapeError: a tensor cannot be cut into its blocks.

    Gradients:
        Exact, of any order: where two tensors are summed, each gets the whole gradient.
    """
    parameters: dict[str, Tensor] = {}
    for name, tensor in stacked.items():
        for part, block in zip(layout[name], _cut(tensor, layout[name], 0), strict=True):
            parameters[part] = parameters[part] + block if part in parameters else block
    return parameters


def restack(layout: Layout, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a cell's parameters into stacked tensors: :func:`unstack` gives the parameters back.

    Args:
        layout: the blocks of each stacked tensor.
        parameters: the cell's, by name; all that the layout mentions.

    Returns:
        All tensors of the layout. Where several hold the same parameter, the first takes it and the others are zero there.
    """
    placed: set[str] = set()
    stacked = {}
    for name, parts in layout.items():
        blocks = []
        for part in parts:
            blocks.append(torch.zeros_like(parameters[part]) if part in placed else parameters[part])
            placed.add(part)
        stacked[name] = torch.cat(blocks)
    return stacked


def _cut(stacked: Tensor, gates: Sequence[str], axis: int) -> tuple[Tensor, ...]:
    count, size = len(gates), stacked.shape[axis]
    if size % count:
        raise ShapeError(
            explain(
                f"a tensor of {count} stacked gates cannot be cut evenly.",
                got=f"{tuple(stacked.shape)}, to be cut along axis {axis} into {' '.join(gates)}",
                expected=f"axis {axis} a multiple of {count}",
            )
        )
    return stacked.chunk(count, axis)
