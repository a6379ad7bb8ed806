"""What the loop can do without: kinds written as simpler ones, until only element-wise ones, sums and views are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carousel.engines.cpu.functions import EMITTERS
from carousel.graph.kinds import (
    Block,
    Constant,
    CumulativeSum,
    Dense,
    Elementwise,
    Kind,
    LogSumExp,
    Max,
    Mean,
    Noise,
    Number,
    Outer,
    Reshape,
    RowProduct,
    Softmax,
    Stretch,
    Sum,
)
from carousel.graph.kinds.reductions import Count
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule, Section
from carousel.graph.shapes import Shape
from carousel.graph.symbol import Builder

Build = Callable[..., Node]

#: What is emitted as it stands.
PRIMITIVES = (Elementwise, Sum, Max, CumulativeSum, Noise, Number, Reshape, Stretch, Constant, Count)
PRODUCTS = (Dense, Block)


def _mean(build: Build, node: Node, x: Node) -> Node:
    assert isinstance(node.kind, Mean) and node.kind.axis is not None  # noqa: S101, PT018 - chosen by its class
    total = build(Sum(node.kind.axis, node.kind.place), x)
    return build(Elementwise("div"), total, build(Count(node.kind.axis)))


def _shifted(build: Build, kind: Softmax | LogSumExp, x: Node) -> tuple[Node, Node]:
    """The largest, and the exponentials of what is left when it is taken away. An infinite largest is not: inf - inf."""
    largest = build(Max(kind.axis, kind.place), x)
    return largest, build(Elementwise("exp"), build(Elementwise("sub"), x, largest))


def _softmax(build: Build, node: Node, x: Node) -> Node:
    assert isinstance(node.kind, Softmax)  # noqa: S101 - chosen by its class
    _, raised = _shifted(build, node.kind, x)
    return build(Elementwise("div"), raised, build(Sum(node.kind.axis, node.kind.place), raised))


def _logsumexp(build: Build, node: Node, x: Node) -> Node:
    kind = node.kind
    assert isinstance(kind, LogSumExp)  # noqa: S101 - chosen by its class
    largest = build(Max(kind.axis, kind.place), x)
    infinite = build(Elementwise("equal"), build(Elementwise("abs"), largest), build(Constant(float("inf"))))
    shift = build(Elementwise("where"), infinite, build(Constant(0.0)), largest)
    raised = build(Elementwise("exp"), build(Elementwise("sub"), x, shift))
    return build(Elementwise("add"), build(Elementwise("log"), build(Sum(kind.axis, kind.place), raised)), shift)


def _view(build: Build, node: Node, shape: Shape) -> Node:
    return node if node.shape == shape else build(Reshape(node.shape, shape), node)


def _row_product(build: Build, node: Node, matrix: Node, vector: Node) -> Node:
    assert isinstance(node.kind, RowProduct)  # noqa: S101 - chosen by its class
    *shared, last = vector.shape
    place = -2 if node.kind.transposed else -1
    spread: Shape = (*shared, last, 1) if node.kind.transposed else (*shared, 1, last)
    terms = build(Elementwise("mul"), matrix, _view(build, vector, spread))
    return _view(build, build(Sum(matrix.shape[place], place), terms), node.shape)


def _outer(build: Build, _: Node, a: Node, b: Node) -> Node:
    *shared, first = a.shape
    return build(Elementwise("mul"), _view(build, a, (*shared, first, 1)), _view(build, b, (*shared, 1, b.shape[-1])))


RULES: dict[type[Kind], Callable[..., Node]] = {
    Mean: _mean,
    Softmax: _softmax,
    LogSumExp: _logsumexp,
    RowProduct: _row_product,
    Outer: _outer,
}


def lower(builder: Builder, nodes: Sequence[Node], known: dict[Node, Node]) -> None:
    """Write nodes as primitive ones.

    Args:
        builder: where new nodes are made.
        nodes: what a region computes, each after its arguments.
        known: from each node to what stands for it; extended.
    """
    for node in nodes:
        args = [known.get(arg, arg) for arg in node.args]
        rule = RULES.get(type(node.kind))
        known[node] = rule(builder.node, node, *args) if rule else builder.node(node.kind, *args, place=node.place)


def unsupported(cut: Schedule) -> str | None:
    """Why the loop of a schedule cannot be compiled, or None."""
    for stage in cut.sections[Section.LOOP]:
        for group in stage.groups:
            for node in group.nodes:
                if not isinstance(node.kind, PRODUCTS):
                    return f"its loop has a product of the kind {type(node.kind).__name__}, which is left to torch"
                if isinstance(node.kind, Dense) and len(node.args[1].shape) != 1:
                    return f"its loop multiplies a matrix with a value of several axes ({node.kind.text('W', 'v')})"
        for node in stage.region:
            kind = node.kind
            if isinstance(kind, Elementwise) and kind.name not in EMITTERS:
                return (
                    f"its loop uses the function '{kind.name}', which has no vector code "
                    f"(carousel.engines.cpu.functions.register gives it one)"
                )
            if type(kind) not in RULES and not isinstance(kind, PRIMITIVES):
                return f"its loop has a value of the kind {type(kind).__name__}, which is left to torch"
    return None
