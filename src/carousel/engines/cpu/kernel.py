"""A loop program as one LLVM function: steps, phases, blocks of units, rows.

``void kernel(ptr args, i64 member, i64 members, ptr barrier)`` runs one member's part of all steps. The rows of the batch are
cut into groups, and a group runs through all steps by itself: what a step leaves for the next is still in a near cache. Members
share the work by rows (each takes groups in turn, and never waits) or by columns (each computes its units for every row, and
waits for the others after each phase): the argument ``columns`` says which.

An element of a product is summed by one accumulator in the order of the inner axis, whoever computes it, and every pass over a
row is done by one member. So results do not depend on the number of members or on the rest of the batch, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from carousel.engines.cpu import frames
from carousel.engines.cpu.blocks import Arguments, Blocks, Function
from carousel.engines.cpu.loop import Buffer, Loop, Pass, Phase, Product, Where
from carousel.engines.cpu.product import vectors_per_panel
from carousel.engines.cpu.rows import Row, Tile
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.threads import emit_barrier
from carousel.engines.cpu.vectors import I64, POINTER, Real, Value, Vectors

NAME = "kernel"


def argument_names(loop: Loop) -> list[str]:
    """The kernel's arguments, in order; addresses are marked with a star.

    ``steps``; ``columns`` (0 or 1); ``groups`` and the rows in one, ``group``; ``*product``, the function; for each step, its
    number of rows (``*rows``), the first of them among the rows of all steps (``*first``), and where the states before and
    after it begin, in rows: taking two places in turn (``*turn before``, ``*turn after``) or along all steps (``*line before``,
    ``*line after``); the size of each axis; for each buffer its address and the bytes from row to row (from member to member
    for `Where.LOCAL`); for each product its packed matrices and the bytes of one vector's weights in them, or of one head's;
    for each fused phase the units' vectors in a block, the rows in a chunk, and room for a member's results.
    """
    names = ["steps", "columns", "groups", "group", "*product"]
    names += ["*rows", "*first", "*turn before", "*turn after", "*line before", "*line after"]
    names += [f"size {axis}" for axis in loop.axes]
    for i in range(len(loop.buffers)):
        names += [f"*buffer {i}", f"row {i}"]
    for product in loop.products:
        names += [f"*matrix {product.number} {i}" for i in range(len(product.operands))]
        names += [f"{'head' if product.blocks else 'vector'} {product.number} {i}" for i in range(len(product.operands))]
    for i, phase in enumerate(loop.phases):
        if phase.fused:
            names += [f"block {i}", f"chunk {i}", f"*tiles {i}", f"tiles {i}"]
    return names


@dataclass(frozen=True)
class _Share:
    """Which rows a member runs: every `step`-th from `start`, below `stop`."""

    start: Value
    step: Value
    stop: Value


@dataclass(frozen=True)
class _Step:
    """What changes from step to step."""

    rows: Value
    first: Value
    turn: tuple[Value, Value]
    line: tuple[Value, Value]
    next_first: Value
    next_after: Value


def build(loop: Loop, target: Target, real: Real) -> ir.Module:
    """Write the kernel of a loop program."""
    return _Kernel(loop, target, real).module


class _Kernel:
    def __init__(self, loop: Loop, target: Target, real: Real) -> None:
        self.loop = loop
        self.real = real
        self.module = ir.Module("carousel")
        self.module.triple = target.triple
        arguments = [("args", POINTER), ("member", I64), ("members", I64), ("barrier", POINTER)]
        function = frames.function(self.module, target, NAME, arguments, inside=False)
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.blocks = Blocks(self.b)
        restore = frames.flush_denormals(self.b, target)
        self.vectors = Vectors(self.b, target, real)
        self.lanes = self.vectors.lanes
        self.panel = vectors_per_panel(target, real)
        given, self.member, self.members, self.barrier = function.args
        self.args = Arguments(argument_names(loop)).read(self.b, given)
        kind = ir.FunctionType(ir.VoidType(), [I64, I64, I64, POINTER, I64, POINTER, POINTER, I64, I64])
        self.product = Function(self.args["*product"], kind)
        self.sizes = {axis: self.args[f"size {axis}"] for axis in loop.axes}
        self.number = {buffer: i for i, buffer in enumerate(loop.buffers)}
        one, zero = self.blocks.number(1), self.blocks.number(0)
        self.columns = self.b.icmp_signed("!=", self.args["columns"], zero)
        self.waiting = self.b.select(self.columns, self.members, one)
        begin, stride = (self.b.select(self.columns, x, y) for x, y in ((zero, self.member), (one, self.members)))
        mine = self.blocks.share(self.blocks.minus(self.args["groups"], begin), stride)
        with self.blocks.loop(zero, mine) as group:
            first = self.blocks.times(self.blocks.plus(begin, self.blocks.times(group.index, stride)), self.args["group"])
            stop = self.blocks.plus(first, self.args["group"])
            # Those who share columns see all rows of the group in products, but each row's passes belong to one.
            self.all_rows = _Share(first, one, stop)
            own = self.b.select(self.columns, self.member, zero)
            self.by_row = _Share(self.blocks.plus(first, own), self.b.select(self.columns, self.members, one), stop)
            with self.blocks.loop(zero, self.args["steps"]) as turn:
                step = self._step(turn.index)
                for i, phase in enumerate(loop.phases):
                    if phase.fused:
                        self._fused(i, phase, step)
                    else:
                        self._plain(phase, step)
        restore()
        self.b.ret_void()

    def _step(self, index: Value) -> _Step:
        following = self.blocks.plus(index, 1)  # the tables have an entry for the step after the last

        def read(name: str, at: Value = index) -> Value:
            return self.b.load(self.b.gep(self.args[name], [at], inbounds=True, source_etype=I64), typ=I64)

        turn, line = (read("*turn before"), read("*turn after")), (read("*line before"), read("*line after"))
        return _Step(read("*rows"), read("*first"), turn, line, read("*first", following), read("*line after", following))

    def _next_step(self, step: _Step) -> Callable[[Buffer], Value | None]:
        """How far on the same row of the next step lies, for what is not in a near cache yet."""

        def ahead(buffer: Buffer) -> Value | None:
            if buffer.where is Where.STEP:
                rows = self.blocks.minus(step.next_first, step.first)
            elif buffer.where is Where.AFTER and buffer.state in self.loop.trajectory:
                rows = self.blocks.minus(step.next_after, step.line[1])
            else:
                return None
            return self.blocks.times(rows, self._gap(buffer))

        return ahead

    def _next_row(self) -> Callable[[Buffer], Value | None]:
        """How far on the member's next row lies. A step is too far ahead where the weights go through the caches meanwhile."""

        def ahead(buffer: Buffer) -> Value | None:
            line = buffer.where is Where.AFTER and buffer.state in self.loop.trajectory
            return self.blocks.times(self._gap(buffer), self.by_row.step) if buffer.where is Where.STEP or line else None

        return ahead

    def _next_block(self, size: Value) -> Callable[[Buffer], Value | None]:
        """How far on the next block of units of the same row lies."""

        def ahead(buffer: Buffer) -> Value | None:
            line = buffer.where is Where.AFTER and buffer.state in self.loop.trajectory
            return size if buffer.where is Where.STEP or line else None

        return ahead

    # --- memory -------------------------------------------------------------------------------------------------------

    def _pointer(self, buffer: Buffer, step: _Step, row: Value) -> Value:
        """Where the row of a buffer begins."""
        i = self.number[buffer]
        base, gap = self.args[f"*buffer {i}"], self.args[f"row {i}"]
        match buffer.where:
            case Where.ONCE:
                return base
            case Where.LOCAL:
                return self.blocks.at(base, self.blocks.times(self.member, gap))
            case Where.STEP:
                row = self.blocks.plus(step.first, row)
            case Where.BEFORE | Where.AFTER:
                offsets = step.line if buffer.state in self.loop.trajectory else step.turn
                row = self.blocks.plus(offsets[buffer.where is Where.AFTER], row)
        return self.blocks.at(base, self.blocks.times(row, gap))

    def _gap(self, buffer: Buffer) -> Value:
        return self.args[f"row {self.number[buffer]}"]

    def _pointers(self, passes: tuple[Pass, ...], step: _Step, row: Value) -> Callable[[Buffer], Value]:
        """The rows of all buffers that some passes touch, found before any branch."""
        known: dict[Buffer, Value] = {}
        for pass_ in passes:
            nodes = [arg for node in pass_.nodes for arg in node.args] + [node for node, _ in pass_.stores]
            buffers = [self.loop.memory.get(self.loop.root(node)) for node in nodes] + [buffer for _, buffer in pass_.stores]
            for buffer in buffers:
                if buffer is not None and buffer not in known:
                    known[buffer] = self._pointer(buffer, step, row)
        return known.__getitem__

    def _count(self, rows: Value, share: _Share) -> Value:
        """How many of the first `rows` rows belong to a share."""
        b = self.b
        left = self.blocks.minus(self.blocks.smaller(rows, share.stop), share.start)
        return b.select(
            b.icmp_signed("<=", left, self.blocks.number(0)), self.blocks.number(0), self.blocks.share(left, share.step)
        )

    @contextmanager
    def _rows(self, start: Value, stop: Value, share: _Share) -> Iterator[tuple[Value, Value]]:
        """Over some of a share's rows: their number within the share, and the row itself."""
        with self.blocks.loop(start, stop) as turn:
            yield turn.index, self.blocks.plus(share.start, self.blocks.times(turn.index, share.step))

    def _wait(self) -> None:
        emit_barrier(self.b, self.barrier, self.waiting, self.vectors.target)

    # --- passes over whole rows ---------------------------------------------------------------------------------------

    def _passes(self, passes: tuple[Pass, ...], step: _Step) -> None:
        if not passes:
            return
        with self._rows(self.blocks.number(0), self._count(step.rows, self.by_row), self.by_row) as (_, row):
            ahead = self._next_row() if self.loop.fuse else self._next_step(step)
            found = self._pointers(passes, step, row)
            writer = Row(self.blocks, self.vectors, self.loop, self.sizes, found, {}, None, ahead)
            for pass_ in passes:
                writer.run(pass_)

    def _plain(self, phase: Phase, step: _Step) -> None:
        """Products of whole rows, then the passes."""
        for product in phase.products:
            (self._blocks_product if product.blocks else self._whole_product)(product, step)
        if phase.products:
            self._wait()
        self._passes(phase.passes, step)
        self._wait()

    # --- products -----------------------------------------------------------------------------------------------------

    def _call(
        self, rows: Value, vectors: Value, inner: Value, a: Value, gap: Value, w: Value, out: Value, room: Value, add: bool
    ) -> None:
        self.b.call(self.product, [rows, vectors, inner, a, gap, w, out, room, self.blocks.number(int(add))])

    def _operand(self, product: Product, pair: int, step: _Step, row: Value) -> tuple[Value, Value]:
        """Where an operand's row lies, and how far it is to the next row."""
        buffer = self.loop.memory[self.loop.root(product.operands[pair])]
        return self._pointer(buffer, step, row), self._gap(buffer)

    def _bytes(self, vectors: Value) -> Value:
        return self.blocks.times(vectors, self.lanes * self.real.size)

    def _weights(self, product: Product, pair: int, first: Value) -> Value:
        """Where the panels that begin with a vector lie. How many bytes they take depends on how weights are stored."""
        matrix, size = self.args[f"*matrix {product.number} {pair}"], self.args[f"vector {product.number} {pair}"]
        return self.blocks.at(matrix, self.blocks.times(first, size))

    def _size(self, axis: str | int) -> Value:
        return self.blocks.number(axis) if isinstance(axis, int) else self.sizes[axis]

    def _result(self, product: Product, step: _Step, row: Value) -> tuple[Value, Value]:
        buffer = self.loop.memory[product.outputs[0]]
        return self._pointer(buffer, step, row), self._gap(buffer)

    def _whole_product(self, product: Product, step: _Step) -> None:
        """All units of all gates, gate by gate: the results lie as rows of their own."""
        blocks, share = self.blocks, self.all_rows
        rows = self._count(step.rows, share)
        units = blocks.share(self._size(product.shape[-1]), self.lanes)
        vectors = blocks.times(units, len(product.outputs))
        start, stop = self._part(vectors, self.panel)  # panels stay whole
        out, room = self._result(product, step, share.start)
        with blocks.only_if(self.b.icmp_signed("<", start, stop)):
            for pair in range(len(product.operands)):
                inner = self._size(product.operands[pair].shape[-1])
                a, gap = self._operand(product, pair, step, share.start)
                w = self._weights(product, pair, start)
                target = blocks.at(out, self._bytes(start))
                gaps = blocks.times(gap, share.step), blocks.times(room, share.step)
                self._call(rows, blocks.minus(stop, start), inner, a, gaps[0], w, target, gaps[1], pair > 0)

    def _blocks_product(self, product: Product, step: _Step) -> None:
        """A matrix for each head. What a head's last vector writes beyond its end is the next head's, which comes after it."""
        blocks, share = self.blocks, self.by_row
        rows = self._count(step.rows, share)
        heads, units = (self._size(axis) for axis in product.shape)
        vectors = blocks.share(units, self.lanes)
        for gate, output in enumerate(product.outputs):
            buffer = self.loop.memory[output]
            out, room = self._pointer(buffer, step, share.start), self._gap(buffer)
            with blocks.loop(blocks.number(0), heads) as turn:
                for pair in range(len(product.operands)):
                    inner = self._size(product.operands[pair].shape[-1])
                    a, gap = self._operand(product, pair, step, share.start)
                    size = self.args[f"head {product.number} {pair}"]
                    place = blocks.plus(turn.index, blocks.times(heads, gate))
                    w = blocks.at(self.args[f"*matrix {product.number} {pair}"], blocks.times(place, size))
                    a = blocks.at(a, blocks.times(blocks.times(turn.index, inner), self.real.size))
                    target = blocks.at(out, blocks.times(blocks.times(turn.index, units), self.real.size))
                    gaps = blocks.times(gap, share.step), blocks.times(room, share.step)
                    self._call(rows, vectors, inner, a, gaps[0], w, target, gaps[1], pair > 0)

    def _part(self, count: Value, grain: int) -> tuple[Value, Value]:
        """A member's part of `count` vectors or blocks, in whole grains, where columns are shared; else all."""
        blocks, b = self.blocks, self.b
        grains = blocks.share(count, grain)
        start = b.sdiv(blocks.times(grains, self.member), self.members)
        stop = b.sdiv(blocks.times(grains, blocks.plus(self.member, 1)), self.members)
        stop = blocks.smaller(blocks.times(stop, grain), count)
        return b.select(self.columns, blocks.times(start, grain), blocks.number(0)), b.select(self.columns, stop, count)

    # --- products and a pass, block by block --------------------------------------------------------------------------

    def _fused(self, index: int, phase: Phase, step: _Step) -> None:
        """For each block of units: the products of a chunk of rows, then the pass over what they left in the first cache."""
        self._passes(phase.prelude, step)
        if phase.prelude:
            self._wait()
        blocks, share, args = self.blocks, self.all_rows, self.args
        rows = self._count(step.rows, share)
        size = self._size(phase.products[0].shape[0])
        units, block, chunk = blocks.share(size, self.lanes), args[f"block {index}"], args[f"chunk {index}"]
        start, stop = self._part(blocks.share(units, block), 1)
        room = blocks.at(args[f"*tiles {index}"], blocks.times(args[f"tiles {index}"], self.member))
        with blocks.loop(start, stop) as turn, blocks.loop(blocks.number(0), blocks.share(rows, chunk)) as part:
            first = blocks.times(turn.index, block)
            width = blocks.smaller(block, blocks.minus(units, first))
            low = blocks.times(part.index, chunk)
            high = blocks.smaller(rows, blocks.plus(low, chunk))
            begin = blocks.plus(share.start, blocks.times(low, share.step))
            tiles: dict[int, tuple[Value, Value]] = {}
            place = room
            for product in phase.products:
                gates = len(product.outputs)
                gap = self._bytes(blocks.times(block, gates))
                tiles[product.number] = (place, gap)
                for pair in range(len(product.operands)):
                    inner = self._size(product.operands[pair].shape[-1])
                    a, distance = self._operand(product, pair, step, begin)
                    w = self._weights(product, pair, blocks.times(first, gates))
                    self._call(
                        blocks.minus(high, low), blocks.times(width, gates), inner,
                        a, blocks.times(distance, share.step), w, place, gap, pair > 0,
                    )  # fmt: skip
                place = blocks.at(place, blocks.times(gap, chunk))
            self._tile_rows(phase, step, share, (low, high), (first, width, size), tiles)
        self._wait()

    def _tile_rows(
        self,
        phase: Phase,
        step: _Step,
        share: _Share,
        rows: tuple[Value, Value],
        units: tuple[Value, Value, Value],
        tiles: dict[int, tuple[Value, Value]],
    ) -> None:
        blocks = self.blocks
        first, width, size = units
        start = blocks.times(first, self.lanes)
        stop = blocks.smaller(size, blocks.plus(start, blocks.times(width, self.lanes)))
        with self._rows(*rows, share) as (number, row):
            offset = blocks.minus(number, rows[0])
            pointer = {key: blocks.at(base, blocks.times(offset, gap)) for key, (base, gap) in tiles.items()}
            tile = Tile(pointer, self._bytes(width), start, stop)
            found = self._pointers(phase.passes, step, row)
            ahead = self._next_block(self._bytes(width))
            writer = Row(blocks, self.vectors, self.loop, self.sizes, found, phase.tiles, tile, ahead)
            for pass_ in phase.passes:
                writer.run(pass_)
