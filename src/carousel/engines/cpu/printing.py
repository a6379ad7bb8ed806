"""The loop program as text: for reading, and for telling loops apart."""

from __future__ import annotations

from carousel.engines.cpu.loop import Buffer, Loop, Pass, Phase, Product, Where
from carousel.engines.cpu.passes import Piece
from carousel.graph.kinds import Constant, Elementwise, Leaf, Role
from carousel.graph.node import Node
from carousel.graph.shapes import show

_WHERE = {
    Where.STEP: "with the rows of all steps",
    Where.ROW: "one for each row of the batch",
    Where.ONCE: "one for all",
    Where.BEFORE: "a state as the step finds it",
    Where.AFTER: "a state as the step leaves it",
    Where.SCRATCH: "one for each row, from phase to phase of one step",
    Where.LOCAL: "one for each thread, from pass to pass over one row",
}
_PIECE = {
    Piece.SCALARS: "single numbers",
    Piece.NEST: "run through",
    Piece.ACROSS: "run across",
    Piece.SCAN: "running sum over",
    Piece.NOISE: "noise for",
}
#: When the value of a leaf was made, where not in this step.
_TIMES = {**dict.fromkeys((Role.PARAMETER, Role.CONTEXT, Role.SEED, Role.ROW, Role.TIME), ""), Role.STATE: "[t-1]"}


class _Writer:
    """What both texts share: the order of the lines, and all that decides what code is written."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.number = {buffer: i for i, buffer in enumerate(loop.buffers)}
        self.labels: dict[Node, str] = {}
        self.read: dict[Buffer, list[Node]] = {}
        for node, buffer in loop.memory.items():
            self.read.setdefault(buffer, []).append(node)

    # --- what the two say differently: here for telling apart -----------------------------------------------------------

    def label(self, node: Node) -> str:  # noqa: ARG002 - with names it says more
        return f"%{len(self.labels)}"

    def computed(self, node: Node, args: list[str]) -> str:
        return f"{node.kind!r}({', '.join(args)})"

    def state(self, name: str) -> str:
        return f"state {list(self.loop.states).index(name)}"

    def matrices(self, product: Product, pair: int) -> str:
        return f"{len(product.matrices[pair])} M{product.number}.{pair}"

    def holds(self, buffer: Buffer) -> str:
        return "holds " + ", ".join(map(self.value, self.read[buffer])) if buffer in self.read else ""

    def piece(self, pass_: Pass) -> str:
        return pass_.piece.value

    def tiles(self, phase: Phase) -> list[str]:
        tiles = phase.tiles.items()
        return [f"  tile {self.value(node)}: product {product.number}, gate {gate}" for node, (product, gate) in tiles]

    # --- what they share ------------------------------------------------------------------------------------------------

    def value(self, node: Node) -> str:
        """A label; the number itself, or what a view is a view of."""
        if isinstance(node.kind, Constant):
            return repr(node.kind.value)
        if node in self.loop.aliases:
            return f"{self.value(self.loop.aliases[node])} as {show(node.shape)}"
        if node not in self.labels:
            self.labels[node] = self.label(node)
        return self.labels[node]

    def memory(self, buffer: Buffer) -> str:
        return f"{buffer.where.value}[{self.number[buffer]}]"

    def buffer(self, buffer: Buffer) -> str:
        loop = self.loop
        parts = [
            f"{self.memory(buffer)} {show(buffer.shape)}",
            self.holds(buffer),
            "whole numbers" if buffer.whole else "",
            self.state(buffer.state) if buffer.state is not None else "",
            "along all steps" if buffer.state in loop.trajectory else "",
            f"product {buffer.product}, gate {buffer.gate}" if buffer.product is not None else "",
            "given" if buffer.given else "",
            "kept" if buffer.where is Where.STEP and not buffer.given else "",
            f"instead of {self.memory(loop.instead[buffer])}" if buffer in loop.instead else "",
        ]
        return ", ".join(part for part in parts if part)

    def product(self, product: Product) -> str:
        kind = (
            ("block " if product.blocks else "") + f"product {product.number}" + (" transposed" if product.transposed else "")
        )
        left = ", ".join(map(self.value, product.outputs))
        pairs = enumerate(product.operands)
        right = " + ".join(f"{self.matrices(product, i)} {self.value(v)} {show(v.shape)}" for i, v in pairs)
        return f"{kind}: {left} {show(product.shape)} = {right}"

    def pass_(self, pass_: Pass) -> list[str]:
        across = f" along {pass_.across}" if pass_.across else ""
        lines = [f"{self.piece(pass_)} {show(pass_.shape)}{across}:"]
        for node in pass_.nodes:
            lines.append(f"  {self.value(node)} {show(node.shape)} = {self.computed(node, list(map(self.value, node.args)))}")
        return lines + [f"  {self.memory(buffer)} <- {self.value(node)}" for node, buffer in pass_.stores]

    def phase(self, number: int, phase: Phase) -> list[str]:
        how = "products and their pass, block by block" if phase.fused else "whole rows"
        lines = [f"phase {number}: {how}"]
        for pass_ in phase.prelude:
            lines += ["  " + line for line in self.pass_(pass_)]
        lines += ["  " + self.product(product) for product in phase.products]
        lines += self.tiles(phase)
        for pass_ in phase.passes:
            lines += ["  " + line for line in self.pass_(pass_)]
        return lines

    def lines(self) -> list[str]:
        loop = self.loop
        how = "block by block where that can be" if loop.fuse else "by whole rows"
        lines = [f"sizes {' '.join(loop.axes)}", f"runs {how}", "memory:"]
        lines += [f"  {self.buffer(buffer)}" for buffer in loop.buffers]
        for i, phase in enumerate(loop.phases):
            lines += self.phase(i, phase)
        return lines


class _Reader(_Writer):
    """Writes with the names of the equations."""

    def label(self, node: Node) -> str:
        if isinstance(node.kind, Leaf):
            name = self.leaf(node.kind)
            return name if name not in self.labels.values() else f"{name}#{len(self.labels)}"
        return f"%{len(self.labels)}" + (f":{node.name}" if node.name else "")

    @staticmethod
    def leaf(kind: Leaf) -> str:
        return kind.name + _TIMES.get(kind.role, "[t]")

    def computed(self, node: Node, args: list[str]) -> str:
        kind = node.kind
        if isinstance(kind, Elementwise):
            return kind.text(*args)
        if args and isinstance(getattr(kind, "axis", None), str | int):  # a sum, a largest, a running sum
            return f"{kind.text(*args)} along {kind.axis}"  # type: ignore[attr-defined]
        return f"{type(kind).__name__.lower()}({', '.join(args) or kind.text()})"

    def state(self, name: str) -> str:
        return f"state {name}"

    def matrices(self, product: Product, pair: int) -> str:
        mark = "^T" if product.transposed else ""
        names = [f"{self.expression(matrix)}{mark}" for matrix in product.matrices[pair]]
        return names[0] if len(names) == 1 else f"[{', '.join(names)}]"

    def tiles(self, phase: Phase) -> list[str]:  # noqa: ARG002 - the products say the same
        return []

    def piece(self, pass_: Pass) -> str:
        return _PIECE[pass_.piece]

    def holds(self, buffer: Buffer) -> str:
        found = []
        for node in self.read.get(buffer, []):
            label = self.value(node)
            made = buffer.given and not isinstance(node.kind, Leaf) and not node.name
            found.append(f"{label} = {self.expression(node)}" if made else label)
        return ", ".join(found)

    def expression(self, node: Node) -> str:
        """How a value from outside the loop is computed, down to what has a name."""
        kind = node.kind
        if isinstance(kind, Leaf):
            return self.leaf(kind)
        if isinstance(kind, Constant):
            return repr(kind.value)
        if node.name:
            return node.name
        args = []
        for arg in node.args:
            written = self.expression(arg)
            single = isinstance(arg.kind, Leaf | Constant) or arg.name or arg.kind.binding >= max(kind.binding, 1)
            args.append(written if single else f"({written})")
        return kind.text(*args)

    def lines(self) -> list[str]:
        used = [where for where in Where if any(buffer.where is where for buffer in self.loop.buffers)]
        return ["where rows lie:", *(f"  {where.value}: {_WHERE[where]}" for where in used), *super().lines()]


def loop_text(loop: Loop, *, named: bool = False) -> str:
    """A loop program: its memory, then a line for each product, value and store.

    Args:
        loop: the program.
        named: with the names of the equations, for reading. Without them loops of the same text get the same code, whatever
            cell they come from: it is their name in the cache.
    """
    return "\n".join((_Reader if named else _Writer)(loop).lines())
