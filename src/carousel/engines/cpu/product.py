"""The matrix product of the loop: a few rows times a packed matrix, in tiles that stay in registers.

`build` writes one module for a kind of CPU and a floating-point type; all cells use it. All sizes are known at run time only,
all strides are in bytes, all whole numbers have 64 bits:

``product(rows, vectors, K, a, a_row, w, out, out_row, accumulate)``
    out[m, v, lane] (+)= sum over k of a[m, k] * w[v, k, lane].

    - `a`: row m at a + m * a_row, K numbers one after another; alignment of one number is enough.
    - `w`: panels one after another, aligned to 64 bytes. A panel is [K][V][lanes] with V of `vectors_per_panel`; where
      `vectors` is no multiple of V, the last panel is [K][vectors % V][lanes]. `pack` makes them. For weights in bfloat16,
      and for what the numbers in a panel then are, see `carousel.engines.cpu.weights`.
    - `out`: row m at out + m * out_row, vectors one after another, alignment of one number is enough.
    - `accumulate`: 0 to start from zero (what is in `out` is not read), 1 to start from what is in `out`.

``pack(gates, units, K, matrices, row, column, block, out)``
    See `carousel.engines.cpu.packing`.

Each element of the result has one accumulator, which takes k in order, with fused multiply-adds where the CPU has them. So its
bits depend on the row and the weights alone: not on the number of rows, nor the tile, nor how columns are dealt to threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from carousel.engines.cpu.frames import VOID, at, case, counted, function, smaller, whole
from carousel.engines.cpu.packing import write_pack
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.tiling import Tiling
from carousel.engines.cpu.tiling import tiling as tiling
from carousel.engines.cpu.tiling import vectors_per_panel as vectors_per_panel
from carousel.engines.cpu.vectors import I32, I64, POINTER, Real, Value, Vectors
from carousel.engines.cpu.weights import Reader, Weights, stored

LINE = 64  # bytes of a cache line, on all CPUs we know
AHEAD = 3072  # bytes between the weights that are used and those that are fetched: sixteen steps of the widest panel

# Where a panel is used by several tiles of rows, the first reads it from far, the others from L2. So that L3 is asked evenly,
# each fetches a part of the next panel into L2. The code is written for one, for two, and for three or more tiles: each has its
# own number of lines to ask for in a turn of the loop. To ask more often than needed or to count at run time was slower by 3 to
# 8 percent, to ask for the parts line by line in turns by 5 to 10. Weights in L2 lose nothing by it. Measured on an Intel CPU
# whose cores read 29 GB/s from L3, K 640, N 2560, against a large product: 20 rows 0.78 before, 0.98 after.
PARTS = 3


def build(target: Target, real: Real, weights: str | None = None) -> ir.Module:
    """The module with `product` and `pack`; a pure function of its arguments.

    Args:
        target: the CPU.
        real: what is computed with.
        weights: the type in which weights are stored, of `weights.STORED`; None for `real`'s own.

    Raises:
        ConfigError: weights of this type are not stored for such numbers.
    """
    kept = stored(real, weights)
    module = ir.Module(f"product.{real.name}.{kept.name}")
    module.triple = target.triple
    write_pack(module, target, real, kept, vectors_per_panel(target, real))
    _Product(module, target, real, kept, tiling(target, kept.together)).write()
    return module


ARGUMENTS = (
    ("K", I64),
    ("a", POINTER),
    ("a_row", I64),
    ("w", POINTER),
    ("out", POINTER),
    ("out_row", I64),
    ("accumulate", I64),
)


def write_tile(
    module: ir.Module,
    target: Target,
    real: Real,
    *,
    rows: int,
    panels: Sequence[int],
    unroll: int,
    fetch: bool,
    later: int = 0,
    weights: str | None = None,
) -> ir.Function:
    """A function for so many rows and a few panels that lie one after another, each so many vectors wide.

    A step of k with R rows and V vectors: R * V fused multiply-adds of a vector; V vectors and R numbers are read. Two of each
    in a cycle are what today's CPUs do: 8 x 3 vectors of 16 floats take 12 cycles for 768 operations and 192 bytes of weights.
    So the promise is the CPU's peak as long as 16 bytes of weights arrive in a cycle, which L2 does (a third of what it can)
    and L3 often does not. One row reads as many bytes for an eighth of the work: it runs at the speed of reading the weights.

    Args:
        module: where it goes.
        target: the CPU.
        real: the floating-point type.
        rows: of the tile.
        panels: vectors of each panel; more than one panel makes more independent chains.
        unroll: steps of k between two jumps.
        fetch: whether to ask for these panels' weights before they are needed.
        later: where not 0, the function has one more argument, the address of weights that later tiles need: it asks for so
            many lines of them in every turn of the loop, one after another, for L2.
        weights: how they are stored, as for `build`.
    """
    name = f"tile_{rows}x{'_'.join(map(str, panels))}" + (f"_later_{later}" if later else "")
    made = function(module, target, name, [*ARGUMENTS, *[("then", POINTER)] * bool(later)], inside=True)
    builder = ir.IRBuilder(made.append_basic_block("entry"))
    _Tile(builder, Vectors(builder, target, real), stored(real, weights), made, rows, panels, unroll, fetch, later).write()
    return made


class _Tile:
    """What is written into a tile's function."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        vectors: Vectors,
        weights: Weights,
        made: ir.Function,
        rows: int,
        panels: Sequence[int],
        unroll: int,
        fetch: bool,
        later: int,
    ) -> None:
        self.builder, self.vec = builder, vectors
        self.rows, self.panels, self.unroll, self.fetch, self.later = rows, panels, unroll, fetch, later
        self.bytes = vectors.lanes * vectors.real.size
        self.weight_bytes, self.ahead = vectors.lanes * weights.size, AHEAD // weights.together
        self.K, a, a_row, w, out, out_row, self.accumulate, *self.then = made.args
        self.a, outs = [a], [out]
        for _ in range(1, rows):
            self.a.append(at(builder, self.a[-1], a_row))
            outs.append(at(builder, outs[-1], out_row))
        self.weights = Reader(vectors, weights, panels, w, self.K)
        self.places = [at(builder, row, v * self.bytes) for row in outs for v in range(sum(panels))]

    def write(self) -> None:
        b, vec = self.builder, self.vec
        load, start, rest, end = (b.append_basic_block(name) for name in ("load", "start", "rest", "end"))
        entry = b.block
        b.cbranch(b.icmp_signed("==", self.accumulate, whole(0)), start, load)
        b.position_at_end(load)
        held = [b.load(place, align=vec.real.size, typ=vec.type) for place in self.places]
        b.branch(start)
        b.position_at_end(start)
        sums = [self._meet(vec.type, (vec.const(0.0), entry), (value, load)) for value in held]
        many = b.and_(self.K, whole(-self.unroll))
        done: list[Value]
        if self.unroll > 1:
            k, done, after = self._loop(whole(0), many, sums, rest, self.unroll)
            b.position_at_end(rest)
            k = self._meet(I64, (whole(0), start), (k, after))
            sums = [self._meet(vec.type, (x, start), (y, after)) for x, y in zip(sums, done, strict=True)]
        else:
            b.branch(rest)
            b.position_at_end(rest)
            k = whole(0)
        _, done, after = self._loop(k, self.K, sums, end, 1)
        b.position_at_end(end)
        sums = [self._meet(vec.type, (x, rest), (y, after)) for x, y in zip(sums, done, strict=True)]
        for value, place in zip(sums, self.places, strict=True):
            b.store(value, place, align=vec.real.size)
        b.ret_void()

    def _meet(self, kind: ir.Type, *ways: tuple[Value, ir.Block]) -> Value:
        value = self.builder.phi(kind)
        for incoming, block in ways:
            value.add_incoming(incoming, block)
        return value

    def _loop(
        self, first: Value, stop: Value, sums: list[Value], after: ir.Block, steps: int
    ) -> tuple[Value, list[Value], ir.Block]:
        """From `first` to `stop`, so many steps at a time, then to `after`: where it stands and what it has summed there."""
        b, before = self.builder, self.builder.block
        body = b.append_basic_block("steps" if steps > 1 else "step")
        b.cbranch(b.icmp_signed("<", first, stop), body, after)
        b.position_at_end(body)
        k = self._meet(I64, (first, before))
        held = [self._meet(self.vec.type, (value, before)) for value in sums]
        new = list(held)
        for step in range(steps):
            if steps == self.unroll:
                self._ask(k, step)
            self._step(k, step, new, steps == 1)
        following = b.add(k, whole(steps))
        k.add_incoming(following, body)
        for phi, value in zip(held, new, strict=True):
            phi.add_incoming(value, body)
        b.cbranch(b.icmp_signed("<", following, stop), body, after)
        return following, new, body

    def _step(self, k: Value, step: int, sums: list[Value], any_step: bool) -> None:
        if self.rows == 1 and self.weights.pairs and not any_step:
            if step % 2 == 0:
                self._two_steps(k, step, sums)
            return
        weights = self.weights.step(k, step, any_step=any_step)
        for m, row in enumerate(self.a):
            spread = self._number(row, k, step)
            for v, weight in enumerate(weights):
                i = m * len(weights) + v
                sums[i] = self.vec.fma(spread, weight, sums[i])

    def _two_steps(self, k: Value, step: int, sums: list[Value]) -> None:
        """Both steps of one vector before the next: else many panels' stored weights would wait in registers."""
        numbers = [self._number(self.a[0], k, step + i) for i in range(2)]
        for i, both in enumerate(self.weights.both_steps(k, step)):
            for number, weight in zip(numbers, both, strict=True):
                sums[i] = self.vec.fma(number, weight, sums[i])

    def _number(self, row: Value, k: Value, step: int) -> Value:
        """A row's number at a step, in all lanes."""
        b, size = self.builder, self.vec.real.size
        place = at(b, at(b, row, b.mul(k, whole(size))), step * size)
        return self.vec.splat(b.load(place, align=size, typ=self.vec.real.type))

    def _ask(self, k: Value, step: int) -> None:
        """Asks for weights of these panels `AHEAD` of this step, and for a few of those for later; each line once."""
        b, steps = self.builder, self.unroll
        if self.fetch:
            (width,) = self.panels
            size = width * self.weight_bytes
            start = at(b, self.weights.starts[0], b.mul(k, whole(size)))
            for line in range(-(-step * size // LINE), -(-(step + 1) * size // LINE)):
                self._prefetch(at(b, start, self.ahead + line * LINE), 3)
        if self.later:
            start = at(b, self.then[0], b.mul(k, whole(self.later * LINE // steps)))
            for line in range(step * self.later // steps, (step + 1) * self.later // steps):
                self._prefetch(at(b, start, line * LINE), 2)

    def _prefetch(self, place: Value, near: int) -> None:
        """Asks for a line; `near` is 3 for the first cache, 2 for the second. Any address will do."""
        self.vec.call("llvm.prefetch.p0", VOID, [place, *(ir.Constant(I32, n) for n in (0, near, 1))])


class _Product:
    """Chooses the tiles of a product."""

    def __init__(self, module: ir.Module, target: Target, real: Real, weights: Weights, cut: Tiling) -> None:
        self.module, self.target, self.real, self.weights, self.cut = module, target, real, weights, cut
        self.step = target.bits // 8
        self.lines = cut.unroll * cut.vectors * self.step // weights.together // LINE  # of weights, in a turn of a tile's loop
        self.parts = PARTS if self.lines > 1 else 1  # one line or half of one cannot be shared
        self.tiles: dict[tuple[int, tuple[int, ...], int], ir.Function] = {}
        names = ("rows", "vectors", *(name for name, _ in ARGUMENTS))
        kinds = (I64, I64, *(kind for _, kind in ARGUMENTS))
        self.made = function(module, target, "product", list(zip(names, kinds, strict=True)), inside=False)

    def write(self) -> None:
        b = ir.IRBuilder(self.made.append_basic_block("entry"))
        one, many, none = (b.append_basic_block(name) for name in ("one", "many", "none"))
        way = b.switch(self.made.args[0], many)
        way.add_case(whole(1), one)
        way.add_case(whole(0), none)
        b.position_at_end(none)
        b.ret_void()
        b.position_at_end(one)
        self._one(b)
        b.position_at_end(many)
        self._many(b)

    def _tile(self, rows: int, panels: Sequence[int], unroll: int, fetch: bool = False, later: int = 0) -> ir.Function:
        key = rows, tuple(panels), later
        if key not in self.tiles:
            unroll, kept = max(unroll, self.weights.together), self.weights.name
            where = self.module, self.target, self.real
            self.tiles[key] = write_tile(
                *where, rows=rows, panels=panels, unroll=unroll, fetch=fetch, later=later, weights=kept
            )
        return self.tiles[key]

    def _one(self, b: ir.IRBuilder) -> None:
        """One row: several panels at once, since the chains of one panel are fewer than a multiply-add takes cycles."""
        V, together = self.cut.vectors, self.cut.together
        _, vectors, K, a, a_row, w, out, out_row, accumulate = self.made.args
        full, rest = b.udiv(vectors, whole(V)), b.urem(vectors, whole(V))
        groups = b.udiv(full, whole(together))
        group = self._tile(1, [V] * together, self.cut.unroll // self.weights.together)
        panel = b.mul(self.weights.count(b, K), whole(V * self.step))
        with counted(b, groups) as i:
            first = b.mul(i, whole(together))
            place = at(b, out, b.mul(first, whole(V * self.step)))
            b.call(group, [K, a, a_row, at(b, w, b.mul(first, panel)), place, out_row, accumulate])
        first = b.mul(groups, whole(together))
        left = b.sub(full, first)
        w, out = at(b, w, b.mul(first, panel)), at(b, out, b.mul(first, whole(V * self.step)))
        end = b.append_basic_block("end")
        way = b.switch(b.add(b.mul(left, whole(V)), rest), end)
        for number in range(1, together * V):
            panels = [V] * (number // V) + [number % V] * bool(number % V)
            with case(b, way, number, end):
                b.call(self._tile(1, panels, 1), [K, a, a_row, w, out, out_row, accumulate])
        b.position_at_end(end)
        b.ret_void()

    def _many(self, b: ir.IRBuilder) -> None:
        """Panels outside, rows inside: a panel is read from far once. The rows are dealt evenly: a small tile only reads."""
        V = self.cut.vectors
        rows, vectors, K, a, a_row, w, out, out_row, accumulate = self.made.args
        tiles = b.udiv(b.add(rows, whole(self.cut.rows - 1)), whole(self.cut.rows))
        each, extra = b.udiv(rows, tiles), b.urem(rows, tiles)

        def over_rows(width: int, weights: Value, place: Value, parts: int) -> None:
            with counted(b, tiles) as tile:
                more = b.icmp_signed("<", tile, extra)
                height = b.select(more, b.add(each, whole(1)), each)
                first = b.add(b.mul(tile, each), smaller(b, tile, extra))
                a_here, out_here = at(b, a, b.mul(first, a_row)), at(b, place, b.mul(first, out_row))
                arguments = [K, a_here, a_row, weights, out_here, out_row, accumulate]
                if parts > 1:
                    arguments.append(self._later(b, at(b, weights, b.mul(column, whole(width))), tile, K, parts))
                self._by_height(b, height, width, parts, arguments)

        full, column = b.sub(vectors, b.urem(vectors, whole(V))), b.mul(self.weights.count(b, K), whole(self.step))
        many = b.append_basic_block("rest")
        way = b.switch(smaller(b, tiles, whole(self.parts)), many)
        for parts in range(1, self.parts + 1):
            with case(b, way, parts, many), counted(b, full, V) as v:
                over_rows(V, at(b, w, b.mul(v, column)), at(b, out, b.mul(v, whole(self.step))), parts)
        b.position_at_end(many)
        weights, place = at(b, w, b.mul(full, column)), at(b, out, b.mul(full, whole(self.step)))
        end = b.append_basic_block("end")
        way = b.switch(b.urem(vectors, whole(V)), end)
        for width in range(1, V):
            with case(b, way, width, end):
                over_rows(width, weights, place, 1)
        b.position_at_end(end)
        b.ret_void()

    def _lines(self, parts: int) -> tuple[int, int]:
        """Of the next panel: the lines a tile asks for in a turn, and how many tiles that takes."""
        asked = -(-self.lines // parts)
        return asked, -(-self.lines // asked)

    def _later(self, b: ir.IRBuilder, panel: Value, tile: Value, K: Value, parts: int) -> Value:
        """Where a tile's part of the next panel begins; that may be behind the weights, which does no harm.

        Callers often pass one block of columns after another, so what lies behind is most often what comes next.
        """
        asked, takes = self._lines(parts)
        turns = b.udiv(K, whole(self.cut.unroll))
        return at(b, panel, b.mul(smaller(b, tile, whole(takes - 1)), b.mul(turns, whole(asked * LINE))))

    def _by_height(self, b: ir.IRBuilder, height: Value, width: int, parts: int, arguments: list[Value]) -> None:
        """The call of the tile of that many rows: from 2, or from what the fewest rows that make so many tiles are dealt."""
        R, after = self.cut.rows, b.append_basic_block("after")
        way = b.switch(height, after)
        full = width == self.cut.vectors
        for rows in range(max(2, ((parts - 1) * R + 1) // parts), R + 1):
            with case(b, way, rows, after):
                if parts > 1:
                    tile = self._tile(rows, [width], self.cut.unroll, later=self._lines(parts)[0])
                else:
                    tile = self._tile(rows, [width], self.cut.unroll if full else 1, fetch=full)
                b.call(tile, arguments)
        b.position_at_end(after)
