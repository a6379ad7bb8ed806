"""Named shapes: the axes of a value, without its rows.

A value's shape is a tuple of axes, each a letter (``"H"``) whose size is known only when a layer is built, or a number.
The batch axis is not part of it: a value either has rows (one value for each sequence of the batch) or it does not
(a parameter). Shapes combine as equations expect: axis by axis, where a 1 stretches and a scalar fits everything.
"""

from __future__ import annotations

from collections.abc import Mapping

from carousel.errors import ConfigError, explain

Axis = str | int
Shape = tuple[Axis, ...]
Sizes = Mapping[str, int]


class ShapeProblem(Exception):  # noqa: N818 - internal: the tracer turns it into a CellError with the cell's line
    """Two shapes do not fit; the tracer adds where."""


def show(shape: Shape) -> str:
    """Write a shape as a tuple of letters.

    Example:
        >>> show(("H",)), show(("N", "E")), show(())
        ('(H)', '(N, E)', '()')
    """
    return "(" + ", ".join(str(axis) for axis in shape) + ")"


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape in which all of `shapes` fit.

    Raises:
        ShapeProblem: two of them have another number of axes, or disagree in one.

    Example:
        >>> broadcast(("H",), (), (1,))
        ('H',)
    """
    result: Shape = ()
    for shape in shapes:
        if not shape or shape == result:
            continue
        if not result:
            result = shape
            continue
        if len(shape) != len(result):
            raise ShapeProblem(f"shapes {show(result)} and {show(shape)} have different numbers of axes")
        merged: list[Axis] = []
        for a, b in zip(result, shape, strict=True):
            if a != b and a != 1 and b != 1:
                raise ShapeProblem(f"shapes {show(result)} and {show(shape)} disagree: {a} is not {b}")
            merged.append(b if a == 1 else a)
        result = tuple(merged)
    return result


def concrete(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """Replace each letter by its size.

    Example:
        >>> concrete(("N", "E", 1), {"N": 4, "E": 8})
        (4, 8, 1)

    Raises:
        ConfigError: a letter has no size.
    """
    try:
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in shape)
    except KeyError as missing:
        raise ConfigError(
            explain(
                f"the cell uses an axis {missing} whose size is not known.",
                got=show(shape),
                expected=f"axes among {', '.join(sizes)}",
                advice="say its size in the cell's sizes(); only a context may have axes of its own",
            )
        ) from None


def axis_index(shape: Shape, axis: Axis | None) -> int:
    """Find `axis` in `shape`, counted from the end (-1 is the last); None means the last.

    Raises:
        ShapeProblem: there is no such axis, or the value is a scalar.
    """
    if not shape:
        raise ShapeProblem("a scalar has no axis to reduce")
    if axis is None:
        return -1
    if axis not in shape:
        raise ShapeProblem(f"there is no axis {axis!r} in {show(shape)}")
    return shape.index(axis) - len(shape)
