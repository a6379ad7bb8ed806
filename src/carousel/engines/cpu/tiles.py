"""The matrix product of the loop in tiles of bfloat16, for CPUs that have them (AMX): sixteen rows of sixteen numbers at once.

`build` writes one module with the functions `product` and `product_turned`, beside `pack`, which fills the panels:

``product(rows, vectors, K, a, step, w, out, out_row, accumulate)``
    out[m, v, lane] (+)= sum over k of a[m, k] * w[v, k, lane], all as in `carousel.engines.cpu.product`, but with weights
    stored as `weights.TILES`, and `a` rounded to bfloat16 on the way. `step`: bytes from row to row of `a`.

``product_turned(..., accumulate, sums)``
    The same with a[k, m]: the numbers of a row lie `step` bytes apart, and rows lie side by side. So a weight's gradient,
    the product of two long matrices along their rows, is turned in registers and needs no copy. Where `sums` is not null, the
    sum of each row of `a`, not rounded, is added there: the gradient of a bias.

An instruction multiplies 16 rows of 32 numbers by 32 rows of 16: 16,384 operations in 16 cycles, eight to sixteen times as many
as the vectors' units do. There are eight registers for tiles: two by two are sums, two hold rows, two weights, so a step of
32 k costs 64 cycles and four loads of eight cycles. A panel is one vector wide: its tiles lie one after another.

Rows come in float32: a block of `ROWS` by `INNER` is rounded and laid together first, and then multiplied by all panels. Sums
are float32, in the order of k; the sum over a block of `INNER` is added to what is in `out`. So an element's bits depend on its
row and the weights alone, as everywhere. Numbers too small for full precision count as zero.

The tiles' settings are handed back as they were found: libraries remember what they set.

On a Xeon whose vectors multiply 140 GFLOP/s on one core, beside another program on the other: 1,100 to 1,300 for 32 rows and
1,024 by 512 weights, 850 for 128 rows and 10,000 by 200, of which the 5 MB of results are most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from carousel.engines.cpu.blocks import Blocks
from carousel.engines.cpu.frames import VOID, at, function, whole
from carousel.engines.cpu.packing import turn, write_pack
from carousel.engines.cpu.product import ARGUMENTS
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import FLOAT32, I8, I32, I64, POINTER, Value, Vectors
from carousel.engines.cpu.weights import TILES

ROWS = 128  # of a block of `a` that is rounded at once
INNER = 512  # of its columns: with `ROWS` 128 KB, which the second cache holds beside a panel
SIDE = 16  # rows of a tile, and its numbers of 32 bits
DEEP = 2 * SIDE  # steps of k in a tile
_TILE = SIDE * 64  # bytes
_SUMS, _LEFT, _RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)  # the registers
WIDTH = 2  # panels that are multiplied together
AHEAD = 4 * _TILE  # bytes between the weights that are used and those that are asked for: 15 % with weights in L2
I16 = ir.IntType(16)
SUMS = ("sums", POINTER)  # the last argument of `product_turned`


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"


def build(target: Target) -> ir.Module:
    """The module with `product`, `turned` and `pack`; a pure function of its argument."""
    module = ir.Module("tiles")
    module.triple = target.triple
    write_pack(module, target, FLOAT32, TILES, 1)
    _Product(module, target).write()
    return module


@dataclass(frozen=True)
class _Block:
    """Rows of a block of k, laid together, and what they are multiplied by.

    Attributes:
        blocks: where the instructions go.
        room: the rows.
        rows: how many.
        steps: tiles of k.
        weights: the first panel, at the block's first k.
        panel: bytes from panel to panel.
        out: the results of the first row and the first panel.
        out_row: bytes from row to row.
        again: not 0 where the results are added to what is there.
    """

    blocks: Blocks
    room: Value
    rows: Value
    steps: Value
    weights: Value
    panel: Value
    out: Value
    out_row: Value
    again: Value


class _Product:
    def __init__(self, module: ir.Module, target: Target) -> None:
        self.module, self.target = module, target
        self.settings = self._settings()

    def write(self) -> None:
        for name, lay, more in (("product", self._lay_rows(), ()), ("product_turned", self._lay_columns(), (SUMS,))):
            kinds = [("rows", I64), ("vectors", I64), *ARGUMENTS, *more]
            self._whole(function(self.module, self.target, name, kinds, inside=False), lay)

    def _settings(self) -> ir.GlobalVariable:
        """All eight registers: sixteen rows of 64 bytes."""
        numbers = [1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8]
        kind = ir.ArrayType(I8, 64)
        made = ir.GlobalVariable(self.module, kind, "settings")
        made.linkage, made.global_constant, made.align = "internal", True, 64
        made.initializer = ir.Constant(kind, numbers)
        return made

    def _do(self, b: ir.IRBuilder, name: str, *args: Value | int) -> None:
        """An instruction on tiles; numbers are registers."""
        values = [ir.Constant(I8, arg) if isinstance(arg, int) else arg for arg in args]
        full = f"llvm.x86.{name}"
        found = self.module.globals.get(full)
        if found is None:
            found = ir.Function(self.module, ir.FunctionType(VOID, [value.type for value in values]), full)
        b.call(found, values)

    # --- the whole ----------------------------------------------------------------------------------------------------

    def _whole(self, made: ir.Function, lay: ir.Function) -> None:
        """Blocks of rows, blocks of k; then panels, and for each panel all pairs of tiles."""
        rows, vectors, K, a, step, w, out, out_row, accumulate, *sums = made.args
        b = ir.IRBuilder(made.append_basic_block("entry"))
        blocks, turned = Blocks(b), bool(sums)
        before, room = b.alloca(ir.ArrayType(I8, 64)), b.alloca(ir.ArrayType(I8, ROWS * INNER * 2))
        before.align = room.align = 64
        self._do(b, "sttilecfg", before)
        self._do(b, "ldtilecfg", self.settings)
        panel = blocks.times(TILES.padded(b, K), 64)
        full, rest = b.udiv(vectors, whole(WIDTH)), b.urem(vectors, whole(WIDTH))
        with blocks.loop(whole(0), rows, ROWS) as outer:
            count = blocks.smaller(blocks.minus(rows, outer.index), whole(ROWS))
            here = blocks.at(a, blocks.times(outer.index, whole(4) if turned else step))
            to = blocks.at(out, blocks.times(outer.index, out_row))
            with blocks.loop(whole(0), K, INNER) as inner:
                deep = blocks.smaller(blocks.minus(K, inner.index), whole(INNER))
                source = blocks.at(here, blocks.times(inner.index, step if turned else whole(4)))
                b.call(lay, [count, deep, source, step, room, *(self._further(b, place, outer.index) for place in sums)])
                weights = blocks.at(w, blocks.times(b.lshr(inner.index, whole(1)), 64))
                again = b.or_(accumulate, inner.index)
                block = _Block(blocks, room, count, blocks.share(deep, DEEP), weights, panel, to, out_row, again)
                with blocks.loop(whole(0), full) as group:
                    self._panels(block, group.index, WIDTH)
                with blocks.only_if(b.icmp_signed("!=", rest, whole(0))):
                    self._panels(block, full, 1)
        self._do(b, "ldtilecfg", before)
        b.ret_void()

    def _panels(self, block: _Block, group: Value, width: int) -> None:
        """All rows of a block by the panels of a group, two tiles of rows at a time."""
        blocks, b = block.blocks, block.blocks.builder
        weights = blocks.at(block.weights, blocks.times(blocks.times(group, WIDTH), block.panel))
        place = blocks.at(block.out, blocks.times(group, WIDTH * 64))

        def multiply(tiles: int, pair: Value, rows: Value) -> None:
            given = blocks.at(block.room, blocks.times(pair, INNER * 64))
            target = blocks.at(place, blocks.times(blocks.times(pair, 2 * SIDE), block.out_row))
            words = [rows, block.steps, given, weights, block.panel, target, block.out_row, block.again]
            b.call(self._tile(tiles, width), words)

        pairs = b.udiv(block.rows, whole(2 * SIDE))
        with blocks.loop(whole(0), pairs) as pair:
            multiply(2, pair.index, whole(2 * SIDE))
        left = blocks.minus(block.rows, blocks.times(pairs, 2 * SIDE))
        two = b.icmp_signed(">", left, whole(SIDE))
        with blocks.only_if(two):
            multiply(2, pairs, left)
        with blocks.only_if(b.and_(b.icmp_signed(">", left, whole(0)), b.not_(two))):
            multiply(1, pairs, left)

    @staticmethod
    def _further(b: ir.IRBuilder, sums: Value, row: Value) -> Value:
        """The sums of rows from `row` on, if any."""
        none = b.icmp_signed("==", b.ptrtoint(sums, I64), whole(0))
        return b.select(none, sums, at(b, sums, b.mul(row, whole(4))))

    # --- rows ---------------------------------------------------------------------------------------------------------

    # A block of rows lies in `room` as [rows / 32][k / 32][32][32]: a step's two tiles side by side, one step behind the other.

    def _lay(self, name: str, *more: tuple[str, ir.Type]) -> tuple[ir.Function, ir.IRBuilder, Vectors, Blocks]:
        words = [("rows", I64), ("K", I64), ("a", POINTER), ("step", I64), ("room", POINTER), *more]
        made = function(self.module, self.target, name, words, inside=True)
        b = ir.IRBuilder(made.append_basic_block("entry"))
        return made, b, Vectors(b, self.target, FLOAT32), Blocks(b)

    @staticmethod
    def _place(b: ir.IRBuilder, room: Value, row: Value) -> Value:
        """Where a row begins in `room`."""
        blocks = Blocks(b)
        pair, within = b.lshr(row, whole(5)), b.and_(row, whole(2 * SIDE - 1))
        return blocks.at(room, blocks.plus(blocks.times(pair, INNER * 64), blocks.times(within, 64)))

    @staticmethod
    def _rounded(vec: Vectors, low: Value, high: Value) -> Value:
        """Two vectors of floats to the nearest bfloat16, ties to even, one behind the other: one instruction."""
        kind = ir.VectorType(_BFloat(), DEEP)
        both = vec.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", kind, [high, low])
        return vec.builder.bitcast(both, ir.VectorType(I16, DEEP))

    def _lay_rows(self) -> ir.Function:
        """Row by row: 32 numbers are rounded and make a tile's row."""
        made, b, vec, blocks = self._lay("lay_rows")
        rows, K, a, step, room = made.args
        full = b.and_(K, whole(-DEEP))
        halves = [blocks.minus(K, full), b.sub(blocks.minus(K, full), whole(SIDE))]

        def line(source: Value, to: Value, masks: Sequence[Value | None]) -> None:
            low, high = (vec.load(at(b, source, half * 64), mask) for half, mask in enumerate(masks))
            b.store(self._rounded(vec, low, high), to, align=64)

        with blocks.loop(whole(0), rows) as row:
            source, to = blocks.at(a, blocks.times(row.index, step)), self._place(b, room, row.index)
            with blocks.loop(whole(0), full, DEEP) as k:
                line(blocks.at(source, blocks.times(k.index, 4)), blocks.at(to, blocks.times(k.index, 64)), [None, None])
            with blocks.only_if(b.icmp_signed("<", full, K)):
                masks = [vec.first_lanes(half) for half in halves]
                line(blocks.at(source, blocks.times(full, 4)), blocks.at(to, blocks.times(full, 64)), masks)
        b.ret_void()
        return made

    def _lay_columns(self) -> ir.Function:
        """Sixteen columns of 32 rows are rounded, two rows side by side, and turned: the columns are a tile's rows.

        Where `sums` is not null, the sum of each column is added there, before it is rounded.
        """
        made, b, vec, blocks = self._lay("lay_columns", ("sums", POINTER))
        rows, K, a, step, room, sums = made.args
        full = b.and_(K, whole(-DEEP))
        order = [half * SIDE + i for i in range(SIDE) for half in range(2)]
        side_by_side = ir.Constant(ir.VectorType(I32, DEEP), [ir.Constant(I32, i) for i in order])

        def square(source: Value, to: Value, mask: Value | None, left: Value | None, total: list[Value]) -> list[Value]:
            held = []
            for i in range(DEEP):
                line = at(b, source, blocks.times(step, i))
                if left is not None:  # rows that are not there are read as the first, and left out
                    there = b.icmp_signed("<", whole(i), left)
                    line = b.select(there, line, source)
                value = vec.load(line, mask)
                held.append(value if left is None else b.select(there, value, vec.const(0.0)))
            pairs = []
            for i in range(0, DEEP, 2):
                both = self._rounded(vec, held[i], held[i + 1])
                pairs.append(b.bitcast(b.shuffle_vector(both, both, side_by_side), vec.type))
            for i, column in enumerate(turn(b, pairs, 4)):
                b.store(column, at(b, to, i * 64), align=64)
            for i, value in enumerate(held):
                total[i % len(total)] = vec.add(total[i % len(total)], value)
            return total

        with blocks.loop(whole(0), rows, SIDE) as row:
            source, to = blocks.at(a, blocks.times(row.index, 4)), self._place(b, room, row.index)
            count = blocks.minus(rows, row.index)
            whole_square = b.icmp_signed(">=", count, whole(SIDE))

            def all_steps(mask: Value | None) -> None:
                with blocks.loop(whole(0), full, DEEP, [vec.const(0.0)] * 4) as k:
                    here = blocks.at(source, blocks.times(k.index, step))
                    k.next = square(here, blocks.at(to, blocks.times(k.index, 64)), mask, None, list(k.carried))
                with blocks.only_if(b.icmp_signed("<", full, K), k.carried) as last:
                    here = blocks.at(source, blocks.times(full, step))
                    left = blocks.minus(K, full)
                    last.next = square(here, blocks.at(to, blocks.times(full, 64)), mask, left, list(last.carried))
                with blocks.only_if(b.icmp_signed("!=", b.ptrtoint(sums, I64), whole(0))):
                    first, second, third, fourth = last.carried
                    place = blocks.at(sums, blocks.times(row.index, 4))
                    found = vec.add(vec.add(first, second), vec.add(third, fourth))
                    vec.store(vec.add(vec.load(place, mask), found), place, mask)

            with blocks.only_if(whole_square):
                all_steps(None)
            with blocks.only_if(b.not_(whole_square)):
                all_steps(vec.first_lanes(count))
        b.ret_void()
        return made

    # --- tiles --------------------------------------------------------------------------------------------------------

    def _tile(self, tiles: int, width: int) -> ir.Function:
        """A function for one or two tiles of rows and a panel."""
        name = f"tile_{tiles}x{width}"
        found = self.module.globals.get(name)
        if found is not None:
            return found
        words = [("rows", I64), ("steps", I64), ("a", POINTER), ("w", POINTER), ("panel", I64)]
        words += [("out", POINTER), ("out_row", I64), ("more", I64)]
        made = function(self.module, self.target, name, words, inside=True)
        b = ir.IRBuilder(made.append_basic_block("entry"))
        vec, blocks = Vectors(b, self.target, FLOAT32), Blocks(b)
        rows, steps, a, w, panel, out, out_row, more = made.args
        sums = [(i, v) for i in range(tiles) for v in range(width)]
        for i, v in sums:
            self._do(b, "tilezero", _SUMS[i * width + v])
        with blocks.loop(whole(0), steps) as k:
            left = blocks.at(a, blocks.times(k.index, 2 * _TILE))
            right = blocks.at(w, blocks.times(k.index, _TILE))
            for i in range(tiles):
                self._do(b, "tileloadd64", _LEFT[i], at(b, left, i * _TILE), whole(64))
            for v in range(width):
                place = blocks.at(right, blocks.times(panel, v))
                self._do(b, "tileloadd64", _RIGHT[v], place, whole(64))
                for line in range(SIDE):
                    vec.fetch(at(b, place, AHEAD + line * 64), near=3)
                for i in range(tiles):
                    self._do(b, "tdpbf16ps", _SUMS[i * width + v], _LEFT[i], _RIGHT[v])
        direct, beside, end = (b.append_basic_block(text) for text in ("direct", "beside", "end"))
        plain = b.and_(b.icmp_signed("==", more, whole(0)), b.icmp_signed("==", rows, whole(tiles * SIDE)))
        b.cbranch(plain, direct, beside)
        b.position_at_end(direct)
        for i, v in sums:
            place = blocks.at(out, blocks.plus(blocks.times(out_row, i * SIDE), v * 64))
            self._do(b, "tilestored64", _SUMS[i * width + v], place, out_row)
        b.branch(end)
        b.position_at_end(beside)
        self._beside(b, vec, sums, made)
        b.branch(end)
        b.position_at_end(end)
        b.ret_void()
        return made

    def _beside(self, b: ir.IRBuilder, vec: Vectors, sums: list[tuple[int, int]], made: ir.Function) -> None:
        """Fewer rows than tiles have, or sums that go on: by way of memory."""
        rows, *_, out, out_row, more = made.args
        blocks, width = Blocks(b), len({v for _, v in sums})
        with b.goto_entry_block():
            room = b.alloca(ir.ArrayType(I8, len(sums) * _TILE))
            room.align = 64
        for i, v in sums:
            place = at(b, room, i * SIDE * width * 64 + v * 64)
            self._do(b, "tilestored64", _SUMS[i * width + v], place, whole(width * 64))
        goes_on = b.icmp_signed("!=", more, whole(0))
        with blocks.loop(whole(0), rows) as row:
            source, to = blocks.at(room, blocks.times(row.index, width * 64)), blocks.at(out, blocks.times(row.index, out_row))
            values = [vec.load(at(b, source, v * 64)) for v in range(width)]
            with blocks.only_if(goes_on, values) as again:
                again.next = [vec.add(vec.load(at(b, to, v * 64)), value) for v, value in enumerate(values)]
            for v, value in enumerate(again.carried):
                vec.store(value, at(b, to, v * 64))
