"""Products of whole matrices, for what stands before and after a loop: one module for all cells, beside `product`.

Both functions are kernels for `threads.run`; their arguments are arrays of 64-bit numbers, named in `LINEAR` and `OUTER`.
Strides are in bytes, and all sizes are known at run time only.

``linear``: out[r, n] = bias[n] + sum over k of a[r, k] * w[n, k], with the weights packed for `product`.
    The weights of each block of K are packed by themselves. Where the units are no multiple of a vector, the last vector of
    each row is computed beside and copied: nothing is written behind a row.

    The left factor may lie turned (``product_turned`` of `carousel.engines.cpu.tiles`): rows lie `a row` bytes apart, columns
    `a column`, and the product is told `a step` and where the `sums` of its columns are, if they are wanted. A panel's line
    holds `together` steps of k.

``outer``: out[n, i] = sum over r of g[r, n] * x[r, i], and sums[n] = sum over r of g[r, n] on the way.
    This is the gradient of a weight and of its bias. Nothing is turned: a tile broadcasts numbers of a row of `g` that lie side
    by side, and reads vectors of a row of `x`. A block of rows is taken at a time, whose `x` stays in the second cache; the
    results wait in memory between two blocks. A block's `x` and strips of its `g` are laid together first, in the caches: rows
    of 4 KB are each a page of their own, and read in place they cost a fifth of the time (measured; N 1024).

As in `product`, each element has one accumulator that takes its terms in order: its bits depend neither on the number of
threads nor on the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from carousel.engines.cpu.blocks import Arguments, Blocks, Function
from carousel.engines.cpu.frames import VOID, function, whole
from carousel.engines.cpu.product import ARGUMENTS
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.tiling import tiling
from carousel.engines.cpu.vectors import I64, POINTER, Real, Value, Vectors

LINEAR = (
    "*product", "rows", "units", "K", "block", "together", "*a", "a row", "a column", "a step", "turned", "*sums",
    "*w", "*w last", "*out", "out row", "*bias", "chunk", "*room", "room",
)  # fmt: skip
OUTER = (
    "rows", "units", "inner", "*g", "g row", "*x", "x row", "*out", "out row", "*sums", "block", "*room", "room",
)  # fmt: skip

# Vectors of a strip of `g`: lines that lie side by side are read together, and as many sums hide an addition's time.
STRIP = 4


def build(target: Target, real: Real) -> ir.Module:
    """The module with `linear` and `outer`; a pure function of its arguments."""
    module = ir.Module(f"wide.{real.name}")
    module.triple = target.triple
    _Linear(module, target, real).write()
    _Outer(module, target, real).write()
    return module


class Kernel:
    """What kernels for `threads.run` have in common: their arguments, and this member's part of the work."""

    name: str
    arguments: Sequence[str]

    def __init__(self, module: ir.Module, target: Target, real: Real) -> None:
        self.module, self.target, self.real = module, target, real
        words = [("args", POINTER), ("member", I64), ("members", I64), ("barrier", POINTER)]
        made = function(module, target, self.name, words, inside=False)
        self.b = ir.IRBuilder(made.append_basic_block("entry"))
        self.vec, self.blocks = Vectors(self.b, target, real), Blocks(self.b)
        given, self.member, self.members, _ = made.args
        self.args = Arguments(self.arguments).read(self.b, given)
        self.bytes = self.vec.lanes * real.size

    def _first(self, count: Value) -> Value:
        """A mask: the first so many lanes."""
        return self.vec.first_lanes(count)

    def _part(self, count: Value) -> tuple[Value, Value]:
        """This member's part of so many pieces: from where, to where."""
        each = self.blocks.share(count, self.members)
        begin = self.blocks.times(each, self.member)
        return begin, self.blocks.smaller(self.blocks.plus(begin, each), count)

    def _there(self, pointer: Value) -> Value:
        """Whether an address was given."""
        return self.b.icmp_signed("!=", self.b.ptrtoint(pointer, I64), whole(0))


class _Linear(Kernel):
    """Chunks of rows, then blocks of K: a chunk's part of `a` stays near while a block of all weights passes by."""

    name, arguments = "linear", LINEAR

    def write(self) -> None:
        b, blocks, args, lanes = self.b, self.blocks, self.args, self.vec.lanes
        vectors, left = b.udiv(args["units"], whole(lanes)), b.urem(args["units"], whole(lanes))
        size = whole(self.real.size)
        biased, ragged = self._there(args["*bias"]), b.icmp_signed("!=", left, whole(0))
        kinds = [I64, I64, *(kind for _, kind in ARGUMENTS)]
        product = Function(args["*product"], ir.FunctionType(VOID, kinds))
        turned = Function(args["*product"], ir.FunctionType(VOID, [*kinds, POINTER]))
        is_turned, null = b.icmp_signed("!=", args["turned"], whole(0)), ir.Constant(POINTER, None)

        def multiply(arguments: list[Value], sums: Value) -> None:
            with blocks.only_if(is_turned):
                b.call(turned, [*arguments, sums])
            with blocks.only_if(b.not_(is_turned)):
                b.call(product, arguments)

        room, line = blocks.at(args["*room"], blocks.times(args["room"], self.member)), whole(self.bytes)
        mask, behind = self._first(left), blocks.times(vectors, self.bytes)
        begin, stop = self._part(blocks.share(args["rows"], args["chunk"]))
        with blocks.loop(begin, stop) as turn:
            first = blocks.times(turn.index, args["chunk"])
            rows = blocks.smaller(args["chunk"], blocks.minus(args["rows"], first))
            a, out = (blocks.at(args[f"*{n}"], blocks.times(first, args[f"{n} row"])) for n in ("a", "out"))
            with blocks.only_if(biased):
                self._start(out, room, rows, vectors)
            with blocks.loop(whole(0), blocks.share(args["K"], args["block"])) as part:
                k = blocks.times(part.index, args["block"])
                inner = blocks.smaller(args["block"], blocks.minus(args["K"], k))
                more = b.zext(b.or_(biased, b.icmp_signed("!=", k, whole(0))), I64)
                pair = [inner, blocks.at(a, blocks.times(k, args["a column"])), args["a step"]]
                line_of_k = b.udiv(k, args["together"])
                weights = blocks.at(args["*w"], blocks.times(line_of_k, behind))
                found = b.select(self._there(args["*sums"]), blocks.at(args["*sums"], blocks.times(first, size)), null)
                multiply([rows, vectors, *pair, weights, out, args["out row"], more], found)
                with blocks.only_if(ragged):
                    weights = blocks.at(args["*w last"], blocks.times(line_of_k, line))
                    multiply([rows, whole(1), *pair, weights, room, line, more], null)
            with blocks.only_if(ragged), blocks.loop(whole(0), rows) as row:
                found = self.vec.load(blocks.at(room, blocks.times(row.index, line)))
                to = blocks.at(out, blocks.plus(blocks.times(row.index, args["out row"]), behind))
                self.vec.store(found, to, mask)
        b.ret_void()

    def _start(self, out: Value, room: Value, rows: Value, vectors: Value) -> None:
        """The bias in every row, as what the sums begin with."""
        blocks, args = self.blocks, self.args
        left = self._first(self.b.urem(args["units"], whole(self.vec.lanes)))
        last = self.vec.load(blocks.at(args["*bias"], blocks.times(vectors, self.bytes)), left)
        with blocks.loop(whole(0), rows) as row:
            to = blocks.at(out, blocks.times(row.index, args["out row"]))
            with blocks.loop(whole(0), vectors) as v:
                here = blocks.times(v.index, self.bytes)
                self.vec.store(self.vec.load(blocks.at(args["*bias"], here)), blocks.at(to, here))
            self.vec.store(last, blocks.at(room, blocks.times(row.index, self.bytes)))


class _Outer(Kernel):
    """A step of a tile of R units and V vectors: R * V multiply-adds; V vectors and R numbers are read, as in `product`."""

    name, arguments = "outer", OUTER

    def write(self) -> None:
        b, blocks, args, lanes = self.b, self.blocks, self.args, self.vec.lanes
        R = tiling(self.target).rows
        self.vectors, self.left = b.udiv(args["inner"], whole(lanes)), b.urem(args["inner"], whole(lanes))
        self._cut()
        room = blocks.at(args["*room"], blocks.times(args["room"], self.member))
        strips = blocks.at(room, blocks.times(blocks.plus(self.vectors, 1), blocks.times(args["block"], self.bytes)))
        begin, stop = self._part(blocks.share(args["units"], STRIP * lanes))
        with blocks.loop(whole(0), blocks.share(args["rows"], args["block"])) as block:
            first = blocks.times(block.index, args["block"])
            rows = blocks.smaller(args["block"], blocks.minus(args["rows"], first))
            g, x = (blocks.at(args[f"*{n}"], blocks.times(first, args[f"{n} row"])) for n in ("g", "x"))
            more = b.zext(b.icmp_signed("!=", first, whole(0)), I64)
            with blocks.only_if(b.icmp_signed("<", begin, stop)):
                self._panels(lambda width, v, masked: self._copy_panel(x, rows, width, v, masked, room))
            with blocks.loop(begin, stop) as strip:
                unit = blocks.times(strip.index, STRIP * lanes)
                count = blocks.smaller(whole(STRIP * lanes), blocks.minus(args["units"], unit))
                self._copy_strip(g, rows, unit, count, strips, more)
                full = blocks.minus(count, b.urem(count, whole(R)))
                for height, start, end in ((R, whole(0), full), (1, full, count)):
                    with blocks.loop(start, end, height) as turn:
                        self._over_panels(height, rows, turn.index, unit, strips, room, more)
        b.ret_void()

    def _over_panels(
        self, height: int, rows: Value, within: Value, unit: Value, strips: Value, room: Value, more: Value
    ) -> None:
        """All results of a few units."""
        blocks, args = self.blocks, self.args
        g = blocks.at(strips, blocks.times(within, self.real.size))
        out = blocks.at(args["*out"], blocks.times(blocks.plus(unit, within), args["out row"]))

        def tile(width: int, v: Value, masked: bool) -> None:
            words = [rows, g, self._panel(room, v), blocks.at(out, blocks.times(v, self.bytes)), args["out row"], more]
            self.b.call(self._tile(height, width, masked), [*words, self.left])

        self._panels(tile)

    def _cut(self) -> None:
        """Panels of V vectors, then of two, then of one."""
        b, blocks, V = self.b, self.blocks, tiling(self.target).vectors
        over = b.urem(self.vectors, whole(V))
        self.wide = self.pairs = blocks.minus(self.vectors, over)
        if V > 2:
            # One vector makes too few chains: with the panel before it makes two of two.
            lonely = b.and_(b.icmp_signed("==", over, whole(1)), b.icmp_signed(">", self.vectors, whole(V)))
            self.wide = blocks.minus(self.wide, b.select(lonely, whole(V), whole(0)))
            rest = blocks.minus(self.vectors, self.wide)
            self.pairs = blocks.plus(self.wide, blocks.minus(rest, b.urem(rest, whole(2))))

    def _panels(self, each: Callable[[int, Value, bool], None]) -> None:
        """Writes `each` with the width of a panel, its first vector, and whether it is the last vector, which is not full."""
        blocks, V = self.blocks, tiling(self.target).vectors
        with blocks.loop(whole(0), self.wide, V) as v:
            each(V, v.index, False)
        if V > 2:
            with blocks.loop(self.wide, self.pairs, 2) as v:
                each(2, v.index, False)
        with blocks.loop(self.pairs, self.vectors) as v:
            each(1, v.index, False)
        with blocks.only_if(self.b.icmp_signed("!=", self.left, whole(0))):
            each(1, self.vectors, True)

    def _panel(self, room: Value, v: Value) -> Value:
        return self.blocks.at(room, self.blocks.times(v, self.blocks.times(self.args["block"], self.bytes)))

    def _copy_panel(self, x: Value, rows: Value, width: int, v: Value, masked: bool, room: Value) -> None:
        blocks, mask = self.blocks, self._first(self.left) if masked else None
        source, to = blocks.at(x, blocks.times(v, self.bytes)), self._panel(room, v)
        with blocks.loop(whole(0), rows) as row:
            line = blocks.at(source, blocks.times(row.index, self.args["x row"]))
            place = blocks.at(to, blocks.times(row.index, width * self.bytes))
            for vector in range(width):
                here = whole(vector * self.bytes)
                self.vec.store(self.vec.load(blocks.at(line, here), mask), blocks.at(place, here))

    def _copy_strip(self, g: Value, rows: Value, unit: Value, count: Value, strips: Value, more: Value) -> None:
        """A few columns of `g`, and on the way their sums."""
        b, blocks, size, lanes = self.b, self.blocks, self.real.size, self.vec.lanes
        summed = self._there(self.args["*sums"])
        goes_on = b.and_(b.icmp_signed("!=", more, whole(0)), summed)
        whole_strip = b.icmp_signed("==", count, whole(STRIP * lanes))
        places = [whole(v * self.bytes) for v in range(STRIP)]

        def copy(masks: list[Value | None]) -> None:
            source = blocks.at(g, blocks.times(unit, size))
            sums = blocks.at(self.args["*sums"], blocks.times(unit, size))
            with blocks.only_if(goes_on, [self.vec.const(0.0)] * STRIP) as again:
                again.next = [self.vec.load(blocks.at(sums, place), mask) for place, mask in zip(places, masks, strict=True)]
            with blocks.loop(whole(0), rows, carried=again.carried) as row:
                line = blocks.at(source, blocks.times(row.index, self.args["g row"]))
                to = blocks.at(strips, blocks.times(row.index, STRIP * self.bytes))
                for v, (place, mask) in enumerate(zip(places, masks, strict=True)):
                    held = self.vec.load(blocks.at(line, place), mask)
                    self.vec.store(held, blocks.at(to, place))
                    row.next[v] = self.vec.add(row.carried[v], held)
            with blocks.only_if(summed):
                for value, place, mask in zip(row.carried, places, masks, strict=True):
                    self.vec.store(value, blocks.at(sums, place), mask)

        with blocks.only_if(whole_strip):
            copy([None] * STRIP)
        with blocks.only_if(b.not_(whole_strip)):
            copy([self._first(blocks.minus(count, whole(v * lanes))) for v in range(STRIP)])

    def _tile(self, height: int, width: int, masked: bool) -> ir.Function:
        """A function for so many units and vectors of x; masked: only the first lanes of its one vector are results."""
        name = f"tile_{height}x{width}{'_masked' * masked}"
        found = self.module.globals.get(name)
        if found is not None:
            return found
        names = ("rows", "g", "x", "out", "out_row", "more", "left")
        words = [(name, POINTER if name in ("g", "x", "out") else I64) for name in names]
        made = function(self.module, self.target, name, words, inside=True)
        b = ir.IRBuilder(made.append_basic_block("entry"))
        vec, blocks, size = Vectors(b, self.target, self.real), Blocks(b), self.real.size
        rows, g, x, out, out_row, more, left = made.args
        mask = vec.first_lanes(left) if masked else None
        lines = [out]
        while len(lines) < height:
            lines.append(blocks.at(lines[-1], out_row))
        places = [blocks.at(line, whole(v * self.bytes)) for line in lines for v in range(width)]
        with blocks.only_if(b.icmp_signed("!=", more, whole(0)), [vec.const(0.0)] * len(places)) as again:
            again.next = [vec.load(place, mask) for place in places]
        unroll, sums = tiling(self.target).unroll if height > 1 else 1, again.carried

        def step(row: Value, held: list[Value]) -> list[Value]:
            line, numbers = (blocks.at(p, blocks.times(row, n * self.bytes)) for p, n in ((x, width), (g, STRIP)))
            vectors = [vec.load(blocks.at(line, whole(v * self.bytes))) for v in range(width)]
            new = []
            for unit in range(height):
                number = b.load(blocks.at(numbers, whole(unit * size)), align=size, typ=self.real.type)
                spread = vec.splat(number)
                new += [vec.fma(spread, vector, held[unit * width + v]) for v, vector in enumerate(vectors)]
            return new

        many = blocks.minus(rows, b.urem(rows, whole(unroll)))
        for begin, stop, steps in ((whole(0), many, unroll), (many, rows, 1)):
            with blocks.loop(begin, stop, steps, sums) as turn:
                turn.next = turn.carried
                for along in range(steps):
                    turn.next = step(blocks.plus(turn.index, along), turn.next)
            sums = turn.carried
        for value, place in zip(sums, places, strict=True):
            vec.store(value, place, mask)
        b.ret_void()
        return made
