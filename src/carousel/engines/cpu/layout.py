"""From a schedule to a loop program: primitive nodes, phases, passes, and a place in memory for every value."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from carousel.engines.cpu.loop import Buffer, Loop, Pass, Phase, Product, Where
from carousel.engines.cpu.lowering import lower
from carousel.engines.cpu.passes import Key, Piece, Region, arrange, reduces, scalar
from carousel.graph.kinds import Block, Constant, Dense, Elementwise, Reshape, Role, Stretch
from carousel.graph.kinds.leaves import Leaf
from carousel.graph.node import Node, reachable
from carousel.graph.program import Level
from carousel.graph.schedule import Schedule, Section, Stage
from carousel.graph.shapes import Shape

_ELSEWHERE = Pass(Piece.SCALARS, (), ())


def _all(stage: Stage) -> list[Node]:
    return [*(node for group in stage.groups for node in group.nodes), *stage.region]


def build_loop(cut: Schedule, *, trajectory: bool, fuse: bool, owned: frozenset[Node] = frozenset()) -> Loop:
    """Lay out the loop of a schedule.

    Args:
        cut: the schedule; `unsupported` says whether its loop can be laid out.
        trajectory: write the states that are kept where they are kept, instead of into two places in turn and again into
            what is kept. Possible where the row of a step and that of the step before are found by one offset.
        fuse: whether phases that can be are fused.
        owned: given values whose memory may be used for kept ones.
    """
    return _Builder(cut, trajectory, fuse, owned).loop()


class _Builder:
    def __init__(self, cut: Schedule, trajectory: bool, fuse: bool, owned: frozenset[Node]) -> None:
        self.owned = owned
        self.program = cut.program
        self.fuse = fuse
        self.cut = cut
        self.wish = trajectory
        self.level = cut.program.levels()
        self.make = cut.program.builder.node
        stages = cut.sections[Section.LOOP]
        computed = {node for stage in stages for node in _all(stage)}
        read = {arg for node in computed for arg in node.args}
        read |= {c.after for c in self.program.carried.values()} | self.program.known
        #: What the loop is given: handed in, or computed before it.
        self.outside = frozenset(node for node in read if node not in computed)
        self.state_of = {c.before: name for name, c in self.program.carried.items()}
        self.known: dict[Node, Node] = {}  # from each node of the loop to the primitive one that stands for it
        self.aliases: dict[Node, Node] = {}
        self.memory: dict[Node, Buffer] = {}
        self.buffers: list[Buffer] = []
        self.defined: dict[Node, int] = {}  # the phase of each primitive node
        self.numbers = itertools.count()
        self.products: list[list[Product]] = []
        self.nodes: list[list[Node]] = []
        for stage in stages or (Stage((), ()),):
            self._stage(stage)
        self.after = {name: self._shaped(name) for name in self.program.carried}

    # --- from stages to primitive nodes -------------------------------------------------------------------------------

    def _stage(self, stage: Stage) -> None:
        products: list[Product] = []
        self.products.append(products)
        self.nodes.append([])
        for group in stage.groups:
            by_shape: dict[Shape, list[Node]] = {}
            for node in group.nodes:
                by_shape.setdefault(node.shape, []).append(node)
            products.extend(map(self._product, by_shape.values()))
        lower(self.program.builder, stage.region, self.known)
        self._define([self.known[node] for node in stage.region])

    def _define(self, wanted: Sequence[Node]) -> None:
        """Add what `wanted` needs, and is not there yet, to the last stage."""
        for node in reachable(wanted, stop=frozenset(self.defined) | self.outside):
            if node in self.defined or node in self.outside or isinstance(node.kind, Constant):
                continue
            self.defined[node] = len(self.nodes) - 1
            if isinstance(node.kind, Reshape):
                self.aliases[node] = node.args[0]
            else:
                self.nodes[-1].append(node)

    def _product(self, nodes: list[Node]) -> Product:
        first = nodes[0]
        assert isinstance(first.kind, Dense | Block)  # noqa: S101 - `unsupported` said so
        outputs = []
        for node in nodes:
            made = self.make(node.kind, *[self.known.get(arg, arg) for arg in node.args])
            self.known[node] = made
            self.defined[made] = len(self.nodes) - 1
            outputs.append(made)
        pairs = range(0, len(first.args), 2)
        return Product(
            number=next(self.numbers),
            outputs=tuple(outputs),
            matrices=tuple(tuple(node.args[i] for node in nodes) for i in pairs),
            operands=tuple(self.known.get(first.args[i + 1], first.args[i + 1]) for i in pairs),
            transposed=first.kind.transposed,
            blocks=isinstance(first.kind, Block),
        )

    def _shaped(self, name: str) -> Node:
        """What a state becomes, in the shape of the state."""
        carried = self.program.carried[name]
        node = self.known.get(carried.after, carried.after)
        if node.shape == carried.before.shape and not isinstance(node.kind, Constant):
            return node
        made = self.make(Stretch(carried.before.shape), node)
        self._define([made])
        return made

    # --- memory -------------------------------------------------------------------------------------------------------

    def _root(self, node: Node) -> Node:
        while node in self.aliases:
            node = self.aliases[node]
        return node

    def _add(self, buffer: Buffer) -> Buffer:
        self.buffers.append(buffer)
        return buffer

    def _given(self, node: Node) -> Buffer:
        """The memory of something that the loop is given."""
        whole = isinstance(node.kind, Leaf) and node.kind.role in (Role.TIME, Role.ROW, Role.SEED)
        if node in self.state_of:
            where = Where.BEFORE
        elif self.level[node] is Level.STEPS:
            where = Where.STEP
        else:
            where = Where.ROW if node.rows else Where.ONCE
        return self._add(Buffer(where, node.shape, node, whole, self.state_of.get(node), given=where is not Where.BEFORE))

    def loop(self) -> Loop:
        """Put everything together."""
        kept = {node: self.known.get(node, node) for node in self.cut.kept}
        states, kept_in = {}, {}
        trajectory = set()
        stores: dict[Node, list[Buffer]] = {}
        for name, carried in self.program.carried.items():
            self.memory[carried.before] = before = self._given(carried.before)
            after = self._add(Buffer(Where.AFTER, carried.before.shape, self.after[name], state=name))
            states[name] = (before, after)
            stores.setdefault(self._root(self.after[name]), []).append(after)
            # A state that becomes another's value as it was has no place of its own among what is kept.
            if self.wish and (carried.before in kept or carried.after in kept) and carried.after not in self.state_of:
                trajectory.add(name)
                pairs = ((carried.before, before), (carried.after, after))
                kept_in.update({node: buffer for node, buffer in pairs if node in kept})
        for original, node in kept.items():
            if original not in kept_in:
                buffer = kept_in[original] = self._add(Buffer(Where.STEP, original.shape, original))
                stores.setdefault(self._root(node), []).append(buffer)
        for node in self._read(stores):
            if node in self.outside and node not in self.memory and not isinstance(node.kind, Constant):
                self.memory[node] = self._given(node)
        phases = tuple(self._phase(i, stores) for i in range(len(self.nodes)))
        return Loop(
            phases=phases,
            buffers=tuple(self.buffers),
            memory=self.memory,
            aliases=self.aliases,
            states=states,
            axes=self._axes(phases),
            kept=kept_in,
            instead=self._instead(phases),
            trajectory=frozenset(trajectory),
            fuse=self.fuse,
        )

    def _instead(self, phases: Sequence[Phase]) -> dict[Buffer, Buffer]:
        """Pairs of a kept buffer and a given one, read for the last time in the pass that writes the kept one."""
        passes = [p for phase in phases for p in (*phase.prelude, *phase.passes)]
        readers: dict[Node, set[Pass]] = {}
        for pass_ in passes:
            for arg in [*(arg for node in pass_.nodes for arg in node.args), *(node for node, _ in pass_.stores)]:
                readers.setdefault(self._root(arg), set()).add(pass_)
                if self._root(arg) is not arg:
                    readers[self._root(arg)].add(_ELSEWHERE)  # a view is not read element by element
        sections = self.cut.sections
        later = {
            arg for which in (Section.AFTER, Section.FINISH) for s in sections[which] for node in _all(s) for arg in node.args
        }
        busy = later | set(self.program.emitted.values()) | {c.after for c in self.program.carried.values()}
        busy |= {self._root(operand) for products in self.products for product in products for operand in product.operands}
        before = [node for stage in sections[Section.BEFORE] for node in _all(stage)]
        new = {node for node in before if isinstance(node.kind, Dense) or node.kind == Elementwise("add")}
        fresh = (new | self.owned) - busy
        free = [b for b in self.buffers if b.given and b.where is Where.STEP and b.node in fresh]
        found: dict[Buffer, Buffer] = {}
        for pass_ in passes:
            for node, buffer in pass_.stores:
                fits = [b for b in free if b.shape == buffer.shape == pass_.shape and readers.get(b.node) == {pass_}]
                if buffer.where is Where.STEP and not reduces(node) and pass_.piece is Piece.NEST and fits:
                    found[buffer] = fits[0]
                    free.remove(fits[0])
        return found

    def _read(self, stores: Mapping[Node, object]) -> list[Node]:
        """What is read, or written as it is, views followed to their roots."""
        found = {arg for nodes in self.nodes for node in nodes for arg in node.args} | set(stores)
        found |= {operand for products in self.products for product in products for operand in product.operands}
        return sorted({self._root(node) for node in found}, key=lambda node: node.number)

    def _axes(self, phases: Sequence[Phase]) -> tuple[str, ...]:
        shapes: list[Shape] = [buffer.shape for buffer in self.buffers]
        for phase in phases:
            shapes += [p.shape for p in (*phase.prelude, *phase.passes)]
            for product in phase.products:
                shapes += [product.shape, *(operand.shape for operand in product.operands)]
        counted = {node.kind.axis for nodes in self.nodes for node in nodes if hasattr(node.kind, "axis")}
        letters = {axis for shape in shapes for axis in shape} | counted
        return tuple(sorted(axis for axis in letters if isinstance(axis, str)))

    # --- phases -------------------------------------------------------------------------------------------------------

    def _phase(self, index: int, stores: Mapping[Node, list[Buffer]]) -> Phase:
        products, nodes = self.products[index], self.nodes[index]
        results = {output: (product, gate) for product in products for gate, output in enumerate(product.outputs)}
        region = arrange(nodes, self._root, stores)
        crossing = self._crossing(index)
        main = self._main(products, region, results, {*stores, *crossing})
        main_reads = {self._root(arg) for node in region.nodes(main) for arg in node.args} if main else set()

        writes: dict[Key, list[tuple[Node, Buffer]]] = {key: [] for key in region.order}
        for node in (*nodes, *results):
            own = list(stores.get(node, ()))
            result = results.get(node)
            if result and main is None:
                product, gate = result
                self.memory[node] = self._add(Buffer(Where.SCRATCH, node.shape, node, product=product.number, gate=gate))
            else:
                early = main is not None and region.key.get(node) != main and node in main_reads  # the prelude is for all rows
                if not own and (node in crossing or (early and not result and not scalar(node.shape))):
                    own = [self._add(Buffer(Where.SCRATCH, node.shape, node))]
                elif not own and node in region.through_memory:
                    own = [self._add(Buffer(Where.LOCAL, node.shape, node))]
                if own:
                    self.memory[node] = own[0]
            key = region.key.get(node) or self._copying(node, main)
            if own:
                writes.setdefault(key, []).extend((node, buffer) for buffer in own)
        if index == len(self.nodes) - 1:  # what is kept or handed on as it was given
            for node, buffers in stores.items():
                if node in self.outside:
                    writes.setdefault(self._copying(node, main), []).extend((node, buffer) for buffer in buffers)

        keys = list(dict.fromkeys([*region.order, *writes]))
        passes = {k: Pass(k.piece, k.shape, tuple(region.nodes(k)), tuple(writes.get(k, ())), k.across) for k in keys}
        if main is None:
            return Phase(tuple(products), (), tuple(passes.values()))
        passes.setdefault(main, Pass(main.piece, main.shape, ()))
        inside = [key for key in keys if key.piece is Piece.SCALARS and region.nodes(key)]
        prelude = tuple(made for key, made in passes.items() if key != main and key not in inside)
        return Phase(tuple(products), prelude, tuple(passes[key] for key in [*inside, main]), results)

    def _crossing(self, index: int) -> set[Node]:
        """Values of a phase that products (its own too) or later phases read."""
        own = {node for node, phase in self.defined.items() if phase == index and node not in self.aliases}
        read = {arg for nodes in self.nodes[index + 1 :] for node in nodes for arg in node.args}
        read |= {operand for products in self.products for product in products for operand in product.operands}
        return own & {self._root(node) for node in read}

    @staticmethod
    def _copying(node: Node, main: Key | None) -> Key:
        """The pass that writes what it does not compute."""
        if scalar(node.shape):
            return Key(0, Piece.SCALARS, (), node=-1)
        if main is not None and node.shape == main.shape:
            return main
        return Key(0, Piece.NEST, node.shape)

    def _main(
        self, products: Sequence[Product], region: Region, results: Mapping[Node, object], written: set[Node]
    ) -> Key | None:
        """The pass that runs block by block with the products, if the phase can be fused."""
        shapes = {product.shape for product in products}
        shape = next(iter(shapes), ())
        whole = len(shapes) == 1 and len(shape) == 1 and not scalar(shape) and not any(product.blocks for product in products)
        if not self.fuse or not whole:
            return None
        after = region.after(set(results), self._root)
        if len(after) > 1:
            return None
        main = next(iter(after), Key(0, Piece.NEST, shape))
        if main.piece is not Piece.NEST or main.shape != shape or any(reduces(node) for node in region.nodes(main)):
            return None
        inside = set(region.nodes(main)) | set(results)
        for key in region.order:
            for node in region.nodes(key):
                roots = {self._root(arg) for arg in node.args}
                if key == main:
                    if any(arg not in inside and self._root(arg) in inside for arg in node.args):
                        return None  # a view of what is not yet whole
                elif roots & inside:
                    return None
                elif key.piece is Piece.SCALARS:
                    computed = (region.key[root].piece for root in roots if root in region.key)
                    if node in written or any(piece is not Piece.SCALARS for piece in computed):
                        return None
                elif reduces(node) and scalar(node.shape):
                    return None  # a number that the pass would need for every row at once
        return main
