"""The schedule: which values are computed when, in what groups.

A program's nodes fall into five sections: what is constant over time (once), what all steps can be computed for at once
before the loop, the loop, what can wait until after it, and what follows from sums over all steps (finish). Each section is a
list of stages: a stage is the products that can start together, then a region of everything between them and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from carousel.graph.kinds import Constant, Dense, Elementwise, Hoisting, Kind, TotalKind
from carousel.graph.node import Node, users
from carousel.graph.program import Carried, Level, Program


class Section(Enum):
    """When a node runs."""

    ONCE = "once"
    BEFORE = "before the loop"
    LOOP = "at each step"
    AFTER = "after the loop"
    FINISH = "at the end"


@dataclass(frozen=True)
class Group:
    """Nodes of one kind that share their second operand: one product, with the first operands stacked.

    A group of one is any node alone.
    """

    nodes: tuple[Node, ...]

    @property
    def stacked(self) -> bool:
        """Whether there is more than one node."""
        return len(self.nodes) > 1


@dataclass(frozen=True)
class Stage:
    """Products that can start together, then what lies between them and the next products."""

    groups: tuple[Group, ...]
    region: tuple[Node, ...]


@dataclass(frozen=True)
class Schedule:
    """A program, cut into sections and stages.

    Attributes:
        program: the program after rewriting; its nodes are the ones scheduled.
        sections: the stages of each section.
        kept: values known or computed at each step that are needed for all steps afterwards.
    """

    program: Program
    sections: Mapping[Section, tuple[Stage, ...]]
    kept: tuple[Node, ...]


def schedule(program: Program) -> Schedule:
    """Schedule a program."""
    program = _rewrite(program, _split_sums)
    program = _rewrite(program, _merge_products)
    section = _sections(program)
    stage, level = _stages(program, section), program.levels()
    table: dict[Section, tuple[Stage, ...]] = {}
    for which in Section:
        nodes = [node for node in program.nodes if section.get(node) is which]
        count = max((stage[node] for node in nodes), default=-1) + 1
        table[which] = tuple(_stage([n for n in nodes if stage[n] == k], level) for k in range(count))
    return Schedule(program, table, _kept(program, section))


def _is_product(node: Node) -> bool:
    return node.kind.hoisting is Hoisting.PRODUCT


def _stage(nodes: list[Node], level: Mapping[Node, Level]) -> Stage:
    groups: dict[object, list[Node]] = {}
    for node in nodes:
        if _is_product(node):
            groups.setdefault((node.kind, node.args[1]) if _stacks(node, level) else node, []).append(node)
    return Stage(tuple(Group(tuple(group)) for group in groups.values()), tuple(n for n in nodes if not _is_product(n)))


def _stacks(node: Node, level: Mapping[Node, Level]) -> bool:
    """Whether a product may be one of a group: what is stacked must be known before the loop, or all its steps at once."""
    if node.kind.stacking is None or len(node.args) != 2:
        return False
    return level[node.args[0]] is Level.ONCE or level[node] is Level.TOTAL


# --- sections ---------------------------------------------------------------------------------------------------------


def _sections(program: Program) -> dict[Node, Section]:
    """The section of every node that is computed."""
    nodes, known, level = program.nodes, program.known, program.levels()
    computed = [node for node in nodes if node not in known]
    readers = users(nodes, stop=known)
    needed = _ancestors((c.after for c in program.carried.values()), known)
    needed |= _ancestors((n for n in computed if n.kind.hoisting is Hoisting.NEVER), known)
    emitted = set(program.emitted.values())

    section: dict[Node, Section] = {}
    before = _before(computed, known, level)
    for node in computed:
        if level[node] is Level.ONCE:
            section[node] = Section.ONCE
        elif level[node] is Level.TOTAL:
            summing = isinstance(node.kind, TotalKind) and all(level[arg] is not Level.TOTAL for arg in node.args)
            section[node] = Section.AFTER if summing else Section.FINISH
        elif node in before:
            section[node] = Section.BEFORE
        elif node in needed:
            section[node] = Section.LOOP
        elif _is_product(node) or any(section.get(arg) is Section.AFTER for arg in node.args):
            section[node] = Section.AFTER
        else:
            section[node] = Section.LOOP
    # What only the section after the loop reads moves there too.
    for node in reversed(computed):
        pinned = section[node] is not Section.LOOP or node in needed or node in emitted or not readers[node]
        if not pinned and all(section[reader] is Section.AFTER for reader in readers[node]):
            section[node] = Section.AFTER
    return section


def _before(computed: list[Node], known: frozenset[Node], level: Mapping[Node, Level]) -> set[Node]:
    """What is computed for all steps at once, before the loop: products of inputs, what they need, what follows at once."""
    hoistable: set[Node] = set()
    for node in computed:
        free = level[node] is Level.STEPS and node.kind.hoisting is not Hoisting.NEVER
        if free and all(arg in known or level[arg] is Level.ONCE or arg in hoistable for arg in node.args):
            hoistable.add(node)
    products = [node for node in computed if node in hoistable and _is_product(node)]
    before = {n for n in _ancestors(products, known) if n in hoistable}
    for node in computed:
        if node in hoistable and node not in before:
            steps = [arg for arg in node.args if level[arg] is Level.STEPS]
            if all(arg in before for arg in steps) and isinstance(node.kind, Elementwise) and node.kind.name == "add":
                before.add(node)  # W x + b: one value crosses into the loop instead of one and a bias
    return before


def _ancestors(results: Iterable[Node], known: frozenset[Node]) -> set[Node]:
    found: set[Node] = set()
    stack = list(results)
    while stack:
        node = stack.pop()
        if node in found or node in known:
            continue
        found.add(node)
        stack.extend(node.args)
    return found


def _stages(program: Program, section: Mapping[Node, Section]) -> dict[Node, int]:
    """The stage of every node within its section."""
    stage: dict[Node, int] = {}
    for node in program.nodes:
        if node not in section:
            continue
        inside = [arg for arg in node.args if section.get(arg) is section[node]]
        if _is_product(node):
            stage[node] = max((stage[arg] + 1 for arg in inside), default=0)
        else:
            stage[node] = max((stage[arg] for arg in inside), default=0)
    return stage


def _kept(program: Program, section: Mapping[Node, Section]) -> tuple[Node, ...]:
    carried = {c.before for c in program.carried.values()}
    inside = {node for node in section if section[node] is Section.LOOP} | carried
    wanted = {n for n in program.emitted.values() if n in inside}
    for node, where in section.items():
        if where is Section.AFTER:
            wanted |= {arg for arg in node.args if arg in inside}
    return tuple(sorted(wanted, key=lambda node: node.number))


# --- rewriting --------------------------------------------------------------------------------------------------------

Rule = Callable[[Program], Callable[[Node, tuple[Node, ...]], Node]]


def _rewrite(program: Program, rule: Rule) -> Program:
    """Rebuild a program; `rule` says what a node becomes, given its rebuilt arguments."""
    change = rule(program)
    known = program.known
    new: dict[Node, Node] = {}
    for node in program.nodes:
        new[node] = node if node in known or isinstance(node.kind, Constant) else change(node, tuple(new[a] for a in node.args))
        if new[node].name is None:
            new[node].name = node.name
    return replace(
        program,
        carried={name: Carried(c.before, new[c.after]) for name, c in program.carried.items()},
        emitted={name: new[node] for name, node in program.emitted.items()},
        totals={name: new[node] for name, node in program.totals.items()},
    )


def _split_sums(program: Program) -> Callable[[Node, tuple[Node, ...]], Node]:
    """``W x + U h + b`` becomes ``(W x + b) + U h``: the part known before the loop is one value."""
    level = program.levels()

    def change(node: Node, args: tuple[Node, ...]) -> Node:
        build = program.builder.node
        if node.kind == Elementwise("add") and level[node] is Level.LOOP:
            early = [new for old, new in zip(node.args, args, strict=True) if level[old] < Level.LOOP]
            late = [new for old, new in zip(node.args, args, strict=True) if level[old] is Level.LOOP]
            if len(early) > 1:
                return build(node.kind, build(node.kind, *early), *late, place=node.place)
        return build(node.kind, *args, place=node.place)

    return change


def _merge_products(program: Program) -> Callable[[Node, tuple[Node, ...]], Node]:
    """``U^T a + V^T b + rest`` becomes one product with a longer sum, where neither shares its operand with another."""
    section = _sections(program)
    stage = _stages(program, section)
    readers = users(program.nodes, stop=program.known)
    results = set(program.results)

    def alone(node: Node) -> bool:
        same = [n for n in readers[node.args[1]] if n.kind == node.kind and section.get(n) is section[node]]
        return len(readers[node]) == 1 and node not in results and len(same) == 1

    def change(node: Node, args: tuple[Node, ...]) -> Node:
        build = program.builder.node
        if node.kind != Elementwise("add"):
            return build(node.kind, *args, place=node.place)
        bundles: dict[tuple[Kind, Section, int], list[Node]] = {}
        rest: list[Node] = []
        for old, new in zip(node.args, args, strict=True):
            if isinstance(old.kind, Dense) and old in section and len(old.args) == 2 and alone(old):
                bundles.setdefault((old.kind, section[old], stage[old]), []).append(new)
            else:
                rest.append(new)
        merged = []
        for (kind, *_), members in bundles.items():
            operands = [arg for member in members for arg in member.args]
            merged.append(build(kind, *operands) if len(members) > 1 else members[0])
        if not any(len(members) > 1 for members in bundles.values()):
            return build(node.kind, *args, place=node.place)
        if not rest and len(merged) == 1:
            return merged[0]
        return build(node.kind, *merged, *rest, place=node.place)

    return change
