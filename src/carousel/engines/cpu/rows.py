"""A pass over one row as LLVM code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from carousel.engines.cpu import functions
from carousel.engines.cpu.blocks import Blocks
from carousel.engines.cpu.loop import Buffer, Loop, Pass
from carousel.engines.cpu.noise import emit_noise
from carousel.engines.cpu.passes import Piece, last_axis, reduces, scalar
from carousel.engines.cpu.vectors import I32, I64, Value, Vectors
from carousel.graph.kinds import Constant, CumulativeSum, Elementwise, Max, Noise, Sum
from carousel.graph.kinds.reductions import Count
from carousel.graph.node import Node
from carousel.graph.shapes import Axis, Shape


@dataclass(frozen=True)
class Tile:
    """Where a fused phase's products left their results for the row and the block of units at hand.

    Attributes:
        pointer: to the first gate's first unit.
        gap: bytes from one gate to the next.
        start: the block's first unit.
        stop: the unit after its last.
    """

    pointer: Mapping[int, Value]
    gap: Value
    start: Value
    stop: Value


@dataclass(frozen=True)
class _Place:
    """Where in a pass: the index along every outer axis and along the vectors' axis, and which lanes are real."""

    outer: Mapping[int, Value]  # by place, counted from the end
    index: Value
    mask: Value | None


class Row:
    """Writes the passes over one row.

    Args:
        blocks: for control flow.
        vectors: for arithmetic.
        loop: the loop program.
        sizes: the size of each axis letter.
        pointers: where each buffer's row begins.
        tiles: in a fused phase, the product and gate of each result.
        tile: in a fused phase, where the results are.
        ahead: for a buffer, how many bytes further on lies what will be needed next, and is in no near cache yet; None where
            it is.
    """

    def __init__(
        self,
        blocks: Blocks,
        vectors: Vectors,
        loop: Loop,
        sizes: Mapping[str, Value],
        pointers: Callable[[Buffer], Value],
        tiles: Mapping[Node, tuple[Any, int]],
        tile: Tile | None,
        ahead: Callable[[Buffer], Value | None],
    ) -> None:
        self.blocks, self.vectors, self.loop, self.sizes = blocks, vectors, loop, sizes
        self.b = blocks.builder
        self.pointers, self.tiles, self.tile, self.ahead = pointers, tiles, tile, ahead
        self.lanes = vectors.lanes
        #: Single numbers known so far, in every lane.
        self.scalars: dict[Node, Value] = {}

    # --- memory -------------------------------------------------------------------------------------------------------

    def size(self, axis: Axis) -> Value:
        """The size of an axis."""
        return self.blocks.number(axis) if isinstance(axis, int) else self.sizes[axis]

    def count(self, axes: Sequence[Axis]) -> Value:
        """The product of sizes."""
        total = self.blocks.number(1)
        for axis in axes:
            if axis != 1:
                total = self.size(axis) if total == self.blocks.number(1) else self.blocks.times(total, self.size(axis))
        return total

    def _offset(self, shape: Shape, place: _Place, vector_axis: int | None) -> Value:
        """The bytes from a row's beginning to the element at `place` of a value of this shape."""
        total: Value = None
        for at in range(-len(shape), 0):
            if shape[at] == 1:
                continue
            index = place.index if at == vector_axis else place.outer[at]
            after = shape[len(shape) + at + 1 :]
            term = self.blocks.times(index, self.count(after)) if any(axis != 1 for axis in after) else index
            total = term if total is None else self.blocks.plus(total, term)
        return self.blocks.times(total, self.vectors.real.size) if total is not None else self.blocks.number(0)

    def _load(self, node: Node, place: _Place, vector_axis: int) -> Value:
        """The value of a node that lies in memory, at `place`."""
        v, real = self.vectors, self.vectors.real
        if node in self.tiles and self.tile is not None:
            product, gate = self.tiles[node]
            along = self.blocks.times(self.blocks.minus(place.index, self.tile.start), real.size)
            offset = self.blocks.plus(along, self.blocks.times(self.tile.gap, gate))
            return self.b.load(self.blocks.at(self.tile.pointer[product.number], offset), align=real.size, typ=v.type)
        buffer = self.loop.memory[self.loop.root(node)]
        pointer = self.pointers(buffer)
        if not node.shape or node.shape[vector_axis] == 1:
            return v.splat(self.b.load(self.blocks.at(pointer, self._offset(node.shape, place, None)), typ=real.type))
        return self._fetched(buffer, self.blocks.at(pointer, self._offset(node.shape, place, vector_axis)), place.mask)

    def _fetched(self, buffer: Buffer, address: Value, mask: Value | None) -> Value:
        """A vector from memory; the one that will be needed next is asked for."""
        self._fetch(buffer, address, mask, write=False)
        return self.vectors.load(address, mask)

    def _fetch(self, buffer: Buffer, address: Value, mask: Value | None, *, write: bool) -> None:
        distance = self.ahead(buffer)
        if mask is None and distance is not None:
            self.vectors.fetch(self.blocks.at(address, distance), write=write)

    def _scalar(self, node: Node) -> Value:
        """A single number in every lane."""
        if isinstance(node.kind, Constant):
            return self.vectors.const(node.kind.value)
        root = self.loop.root(node)
        if root not in self.scalars:
            buffer = self.loop.memory[root]
            pointer = self.pointers(buffer)
            if buffer.whole:
                number = self.b.sitofp(self.b.load(pointer, typ=I64), self.vectors.real.type)
            else:
                number = self.b.load(pointer, typ=self.vectors.real.type)
            self.scalars[root] = self.vectors.splat(number)
        return self.scalars[root]

    def _first(self, vector: Value) -> Value:
        return self.b.extract_element(vector, ir.Constant(I32, 0))

    # --- passes -------------------------------------------------------------------------------------------------------

    def run(self, pass_: Pass) -> None:
        """Write one pass."""
        read = [arg for node in pass_.nodes for arg in node.args] + [stored for stored, _ in pass_.stores]
        for node in read:
            known = node in pass_.nodes or isinstance(node.kind, Constant) or self._is_whole_vector(node)
            if scalar(node.shape) and not known and self.loop.root(node) not in pass_.nodes:
                self._scalar(node)  # before any branch, so that it is known on every path
        match pass_.piece:
            case Piece.SCALARS:
                self._numbers(pass_)
            case Piece.NEST:
                self._nest(pass_)
            case Piece.ACROSS:
                self._across(pass_)
            case Piece.SCAN:
                self._scan(pass_)
            case Piece.NOISE:
                self._noise(pass_)

    def _is_whole_vector(self, node: Node) -> bool:
        root = self.loop.root(node)
        return root in self.loop.memory and self.loop.memory[root].whole and not scalar(root.shape)

    def _compute(self, node: Node, args: Sequence[Value]) -> Value:
        """One node that is computed lane by lane."""
        if isinstance(node.kind, Elementwise):
            return functions.emit(self.vectors, node.kind.name, args, node.kind.settings)
        return args[0]  # a stretched value, a number of a step, a sum along an axis of size 1

    def _numbers(self, pass_: Pass) -> None:
        for node in pass_.nodes:
            if isinstance(node.kind, Count):
                number = self.b.sitofp(self.size(node.kind.axis), self.vectors.real.type)
                self.scalars[node] = self.vectors.splat(number)
            else:
                self.scalars[node] = self._compute(node, [self._scalar(arg) for arg in node.args])
        for node, buffer in pass_.stores:
            self.b.store(self._first(self._scalar(node)), self.pointers(buffer))

    def _flat(self, pass_: Pass) -> bool:
        """Whether a pass touches only whole values of one shape, so that its axes can be run through as one."""
        touched = [n for node in pass_.nodes for n in (node, *node.args)] + [node for node, _ in pass_.stores]
        return not any(map(reduces, pass_.nodes)) and all(n.shape == pass_.shape for n in touched if not scalar(n.shape))

    def _nest(self, pass_: Pass) -> None:
        shape = pass_.shape
        if len([axis for axis in shape if axis != 1]) > 1 and self._flat(pass_):
            self._along(pass_, {}, -1, self.blocks.number(0), self.count(shape), flat=True)
            return
        vector_axis = last_axis(shape)
        if self.tile is not None:
            self._along(pass_, {}, vector_axis, self.tile.start, self.tile.stop)
            return
        outer = [at for at in range(-len(shape), 0) if shape[at] != 1 and at != vector_axis]

        def inner(indices: dict[int, Value]) -> None:
            self._along(pass_, indices, vector_axis, self.blocks.number(0), self.size(shape[vector_axis]))

        self._over(outer, shape, inner)

    def _over(self, axes: Sequence[int], shape: Shape, body: Callable[[dict[int, Value]], None]) -> None:
        """Loops over outer axes, around `body`."""

        def nested(rest: Sequence[int], indices: dict[int, Value]) -> None:
            if not rest:
                body(indices)
                return
            with self.blocks.loop(self.blocks.number(0), self.size(shape[rest[0]])) as turn:
                nested(rest[1:], {**indices, rest[0]: turn.index})

        nested(axes, {})

    def _along(self, pass_: Pass, outer: dict[int, Value], axis: int, start: Value, stop: Value, *, flat: bool = False) -> None:
        """The vectors of one line: whole ones in a loop, then the lanes that are left."""
        blocks, b = self.blocks, self.b
        sums = [node for node in pass_.nodes if reduces(node)]
        carried = [self._neutral(node) for node in sums]
        whole = blocks.plus(start, b.and_(blocks.minus(stop, start), blocks.number(-self.lanes)))
        with blocks.loop(start, whole, self.lanes, carried) as turn:
            turn.next = self._body(pass_, _Place(outer, turn.index, None), axis, turn.carried, flat)
        with blocks.only_if(b.icmp_signed("<", whole, stop), turn.carried) as rest:
            place = _Place(outer, whole, self.vectors.first_lanes(blocks.minus(stop, whole)))
            rest.next = self._body(pass_, place, axis, turn.carried, flat)
        for node, value in zip(sums, rest.carried, strict=True):
            total = self._joined(node, value)
            if scalar(node.shape):
                self.scalars[node] = total
            for stored, buffer in pass_.stores:
                if stored is node:
                    offset = self._offset(node.shape, _Place(outer, blocks.number(0), None), None)
                    b.store(self._first(total), blocks.at(self.pointers(buffer), offset))

    def _body(self, pass_: Pass, place: _Place, axis: int, sums: Sequence[Value], flat: bool) -> list[Value]:
        """The values of a pass for the lanes at `place`; what its sums have become."""
        values: dict[Node, Value] = {}
        loaded: dict[Node, Value] = {}
        left = iter(sums)
        found: list[Value] = []

        def get(node: Node) -> Value:
            if node in values:
                return values[node]
            if scalar(node.shape):
                return self._scalar(node)
            if node not in loaded:
                loaded[node] = self._line(node, place) if flat else self._load(node, place, axis)
            return loaded[node]

        for node in pass_.nodes:
            if reduces(node):
                found.append(self._joining(node, next(left), get(node.args[0]), place.mask))
            else:
                values[node] = self._compute(node, [get(arg) for arg in node.args])
        for node, buffer in pass_.stores:
            if reduces(node):
                continue
            value = get(node)
            pointer = self.pointers(buffer)
            offset = self.blocks.times(place.index, self.vectors.real.size) if flat else self._offset(pass_.shape, place, axis)
            address = self.blocks.at(pointer, offset)
            self._fetch(buffer, address, place.mask, write=True)
            self.vectors.store(value, address, place.mask)
        return found

    def _line(self, node: Node, place: _Place) -> Value:
        """A value whose axes are run through as one."""
        buffer = self.loop.memory[self.loop.root(node)]
        offset = self.blocks.times(place.index, self.vectors.real.size)
        return self._fetched(buffer, self.blocks.at(self.pointers(buffer), offset), place.mask)

    # --- sums ---------------------------------------------------------------------------------------------------------

    def _neutral(self, node: Node) -> Value:
        return self.vectors.const(float("-inf") if isinstance(node.kind, Max) else 0.0)

    def _joining(self, node: Node, so_far: Value, value: Value, mask: Value | None) -> Value:
        """A sum with one value more. NaN comes through the largest, too."""
        joined = self._join(node, so_far, value)
        return joined if mask is None else self.vectors.select(mask, joined, so_far)

    def _join(self, node: Node, a: Value, b: Value) -> Value:
        if isinstance(node.kind, Sum):
            return self.vectors.add(a, b)
        better = self.b.or_(self.vectors.compare(">", b, a), self.vectors.is_nan(b))
        return self.vectors.select(better, b, a)

    def _joined(self, node: Node, value: Value) -> Value:
        """The lanes of a sum joined, in every lane: halves onto halves, so the order does not depend on anything."""
        step = self.lanes // 2
        undefined = ir.Constant(self.vectors.type, ir.Undefined)
        while step:
            order = [ir.Constant(I32, lane ^ step) for lane in range(self.lanes)]
            other = self.b.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, self.lanes), order))
            value = self._join(node, value, other)
            step //= 2
        return value

    def _across(self, pass_: Pass) -> None:
        """Sums along an axis that is not the last: a vector of sums for each vector of the last axis."""
        shape, summed = pass_.shape, pass_.across
        without = tuple(1 if at - len(shape) == summed else axis for at, axis in enumerate(shape))
        axis = last_axis(without)
        outer = [at for at in range(-len(shape), 0) if shape[at] != 1 and at not in (axis, summed)]
        blocks, b = self.blocks, self.b
        sums = [node for node in pass_.nodes if reduces(node)]

        def line(indices: dict[int, Value], index: Value, mask: Value | None) -> None:
            with blocks.loop(blocks.number(0), self.size(shape[summed]), 1, [self._neutral(n) for n in sums]) as turn:
                place = _Place({**indices, summed: turn.index}, index, mask)
                turn.next = self._body(Pass(pass_.piece, shape, pass_.nodes), place, axis, turn.carried, flat=False)
            for node, value in zip(sums, turn.carried, strict=True):
                for stored, buffer in pass_.stores:
                    if stored is node:
                        offset = self._offset(node.shape, _Place(indices, index, mask), axis)
                        self.vectors.store(value, blocks.at(self.pointers(buffer), offset), mask)

        def body(indices: dict[int, Value]) -> None:
            stop = self.size(shape[axis])
            whole = b.and_(stop, blocks.number(-self.lanes))
            with blocks.loop(blocks.number(0), whole, self.lanes) as turn:
                line(indices, turn.index, None)
            with blocks.only_if(b.icmp_signed("<", whole, stop)):
                line(indices, whole, self.vectors.first_lanes(blocks.minus(stop, whole)))

        self._over(outer, shape, body)

    def _scan(self, pass_: Pass) -> None:
        """A running sum, number by number."""
        node = pass_.nodes[0]
        kind, shape = node.kind, node.shape
        assert isinstance(kind, CumulativeSum)  # noqa: S101 - that is what this pass is for
        blocks, b, real = self.blocks, self.b, self.vectors.real
        source = self.pointers(self.loop.memory[self.loop.root(node.args[0])])
        outer = [at for at in range(-len(shape), 0) if shape[at] != 1 and at != kind.place]

        def body(indices: dict[int, Value]) -> None:
            size = self.size(shape[kind.place])
            with blocks.loop(blocks.number(0), size, 1, [ir.Constant(real.type, 0.0)]) as turn:
                at = blocks.minus(blocks.minus(size, turn.index), blocks.number(1)) if kind.reverse else turn.index
                offset = self._offset(shape, _Place({**indices, kind.place: at}, at, None), None)
                total = b.fadd(turn.carried[0], b.load(blocks.at(source, offset), typ=real.type))
                for _, buffer in pass_.stores:
                    b.store(total, blocks.at(self.pointers(buffer), offset))
                turn.next = [total]

        self._over(outer, shape, body)

    def _noise(self, pass_: Pass) -> None:
        node = pass_.nodes[0]
        kind = node.kind
        assert isinstance(kind, Noise)  # noqa: S101 - that is what this pass is for

        def word(arg: Node, index: int = 0) -> Value:
            pointer = self.pointers(self.loop.memory[self.loop.root(arg)])
            return self.b.load(self.blocks.at(pointer, self.blocks.number(8 * index)), typ=I64)

        key = (word(node.args[0]), word(node.args[0], 1))
        row = word(node.args[1]) if kind.by_row else None
        step = word(node.args[-1]) if kind.by_step else None
        targets = [self.pointers(buffer) for _, buffer in pass_.stores]
        first = emit_noise(self.blocks, self.vectors, kind.stream, key, row, step, self.count(node.shape), targets)
        if scalar(node.shape):
            self.scalars[node] = first
