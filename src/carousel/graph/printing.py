"""A cell as text and as LaTeX: its equations, its graph, its schedule.

Equations use the cell's own variable names: a value that was assigned to a variable in `step` gets an equation, everything
else stands inside the equation that uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from carousel.graph.cell import Cell
from carousel.graph.differentiate import Plan, plan, varying
from carousel.graph.kinds import Constant, Dense, Elementwise, Leaf, Role
from carousel.graph.node import Node, users
from carousel.graph.schedule import Schedule, Section
from carousel.graph.schedule import schedule as make_schedule
from carousel.graph.shapes import show
from carousel.graph.step import Step

_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "phi",
        "chi",
        "psi",
        "omega",
    ]
)


def _text_name(name: str, time: str) -> str:
    return name if not time else f"{name}_{time}" if len(time) < 2 else f"{name}_{{{time}}}"


def _latex_name(name: str, time: str) -> str:
    head, _, tail = name.partition("_")
    primes = head.count("'") + tail.count("'")
    head, tail = head.replace("'", ""), tail.replace("'", "").replace("_", r"\_")
    word = rf"\{head}" if head in _GREEK else head if len(head) == 1 else rf"\mathrm{{{head}}}"
    below = ",".join(part for part in (tail, time) if part)
    return word + "'" * primes + (f"_{{{below}}}" if below else "")


@dataclass(frozen=True)
class _Writer:
    """Writes nodes; `names` are the values that have an equation of their own."""

    names: dict[Node, str]
    latex: bool
    constant: frozenset[Node] = frozenset()

    def name(self, node: Node) -> str | None:
        kind = node.kind
        style = _latex_name if self.latex else _text_name
        if isinstance(kind, Leaf):
            time = _TIMES.get(kind.role, "t")
            return "t" if kind.role is Role.TIME else style(kind.name, time)
        return style(self.names[node], "" if node in self.constant else "t") if node in self.names else None

    def write(self, node: Node) -> str:
        """The name of a node, or else how it is computed."""
        node = _value(node)
        return self.name(node) or self.expression(node)

    def expression(self, node: Node) -> str:
        """How a node is computed."""
        args = [self._inside(node, place, arg) for place, arg in enumerate(node.args)]
        if self.latex and node.kind == Elementwise("add"):
            return " + ".join(args)
        return node.kind.latex(*args) if self.latex else node.kind.text(*args)

    def _inside(self, node: Node, place: int, arg: Node) -> str:
        arg = _value(arg)
        written = self.write(arg)
        if self.name(arg) is not None or isinstance(arg.kind, Constant):
            return written
        least = node.kind.binding if node.kind.binding < 2 else 0  # a function brings its own brackets
        if isinstance(node.kind, Dense):
            least = 2
        elif isinstance(node.kind, Elementwise) and place == 1 and node.kind.name in ("sub", "div"):
            least += 1
        elif self.latex and isinstance(node.kind, Elementwise) and node.kind.name == "power":
            least = 3  # an exponent binds more tightly than anything
        if arg.kind.binding >= least:
            return written
        return rf"\left({written}\right)" if self.latex else f"({written})"


def _name_repeated(step: Step, names: dict[Node, str], constant: frozenset[Node]) -> None:
    """Give a name to what is long and used more than once, so that equations do not repeat it."""
    readers = users(step.nodes)
    writer = _Writer(names, False, constant)
    count = 0
    for node in step.nodes:
        if node in names or node.kind.silent or isinstance(node.kind, Leaf | Constant) or len(readers[node]) < 2:
            continue
        if len(writer.expression(node)) > _LONG:
            count += 1
            names[node] = f"s{count}"


#: Characters from which an expression that is used twice gets a name.
_LONG = 40

#: When the value of a leaf was made; the others are this step's.
_TIMES = {Role.PARAMETER: "", Role.CONTEXT: "", Role.SEED: "", Role.ROW: "", Role.STATE: "t-1"}


def _value(node: Node) -> Node:
    """The value behind changes of layout."""
    while node.kind.silent:
        node = node.args[0]
    return node


def _equations(step: Step, latex: bool) -> list[tuple[str, str]]:
    new = {node: name for name, node in reversed(list(step.new_states.items()))}
    taken = set(step.states) | set(step.inputs) | set(step.parameters)
    names: dict[Node, str] = {}
    called: dict[Node, str] = {}
    for node in step.nodes:
        if node.name and node.name not in step.parameters and not isinstance(node.kind, Leaf):
            called.setdefault(_value(node), node.name)
    for node in step.nodes:
        if isinstance(node.kind, Leaf | Constant) or node.kind.silent:
            continue
        own = called.get(node)
        if node in new and (own is None or own in step.states):
            names[node] = new[node]
        elif own is not None:
            name = own
            while name in taken or name in names.values():
                name += "'"
            names[node] = name
    output = _value(step.output)
    if output not in names and not isinstance(output.kind, Leaf):
        names[output] = "y" if "y" not in taken else "output"
    constant = frozenset(set(step.nodes) - varying(step))
    _name_repeated(step, names, constant)
    writer = _Writer(names, latex, constant)
    style = _latex_name if latex else _text_name
    lines = [(writer.write(node), writer.expression(node)) for node in sorted(names, key=lambda node: node.number)]
    for state, node in step.new_states.items():
        if names.get(_value(node)) != state:  # two names for one value, or a value handed on as it is
            lines.append((style(state, "t"), writer.write(node)))
    return lines


def equations(cell: Cell) -> str:
    """The equations of a cell as text, one a line.

    Example:
        >>> from carousel.cells import Elman
        >>> print(equations(Elman()))
        h_t = tanh(W_h x_t + U_h h_{t-1} + b_h)
    """
    lines = _equations(cell.graph, latex=False)
    width = max(len(left) for left, _ in lines)
    return "\n".join(f"{left:<{width}} = {right}" for left, right in lines)


def latex(cell: Cell) -> str:
    r"""The equations of a cell as LaTeX, aligned at the equals signs, for use in ``\begin{aligned}``.

    Example:
        >>> from carousel.cells import Elman
        >>> print(latex(Elman()))
        \begin{aligned}
        h_{t} &= \tanh\left({W_{h}} x_{t} + {U_{h}} h_{t-1} + b_{h}\right)
        \end{aligned}
    """
    lines = [f"{left} &= {right}" for left, right in _equations(cell.graph, latex=True)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


# --- the graph and the schedule ---------------------------------------------------------------------------------------


def _numbering(nodes: list[Node]) -> Callable[[Node], str]:
    labels: dict[Node, str] = {}
    for node in nodes:
        if isinstance(node.kind, Leaf):
            time = _TIMES.get(node.kind.role, "t")
            labels[node] = node.kind.name + (f"[{time}]" if time else "")
        elif not isinstance(node.kind, Constant):
            labels[node] = f"%{len(labels)}" + (f":{node.name}" if node.name else "")
    return lambda node: labels.get(node) or node.kind.text()


def _line(node: Node, label: Callable[[Node], str]) -> str:
    return f"{label(node)} {show(node.shape)} = {node.kind.text(*map(label, node.args))}"


def graph(cell: Cell) -> str:
    """The traced graph, a node a line, with shapes."""
    step = cell.graph
    label = _numbering(step.nodes)
    lines = [f"{label(node)} {show(node.shape)}  {node.kind.role.value}" for node in step.nodes if isinstance(node.kind, Leaf)]
    lines += [_line(node, label) for node in step.nodes if not isinstance(node.kind, Leaf | Constant)]
    lines += [f"{name}[t] = {label(node)}" for name, node in step.new_states.items()]
    return "\n".join([*lines, f"output = {label(step.output)}"])


def schedule_text(plan_: Schedule) -> str:
    """A schedule: its sections, their stages, the products of each and what follows."""
    known = sorted(plan_.program.known, key=lambda node: node.number)
    label = _numbering([*known, *(node for node in plan_.program.nodes if node not in plan_.program.known)])
    lines: list[str] = []
    for section in Section:
        stages = plan_.sections[section]
        shown = [s for s in stages if s.groups or any(not isinstance(n.kind, Constant) for n in s.region)]
        if not shown:
            continue
        lines.append(f"{section.value}:")
        for stage in shown:
            for group in stage.groups:
                word = f"one product of {len(group.nodes)}" if group.stacked else "product"
                lines.append(f"  {word}:")
                lines += [f"    {_line(node, label)}" for node in group.nodes]
            region = [node for node in stage.region if not isinstance(node.kind, Constant)]
            if region:
                lines.append("  region:")
                lines += [f"    {_line(node, label)}" for node in region]
    if plan_.kept:
        lines.append("kept for every step: " + ", ".join(map(label, plan_.kept)))
    lines += [f"carried {name}[t] = {label(c.after)}" for name, c in plan_.program.carried.items()]
    lines += [f"total {name} = {label(node)}" for name, node in plan_.program.totals.items()]
    return "\n".join(lines)


def schedule(cell: Cell) -> str:
    """The schedule of the forward step, with what it saves for the backward one."""
    both = plan(cell.graph)
    return "\n".join([schedule_text(make_schedule(both.forward)), *_memory(cell.graph, both)])


def backward(cell: Cell) -> str:
    """The schedule of the backward step, derived from the equations."""
    return schedule_text(make_schedule(plan(cell.graph).backward))


def _memory(step: Step, both: Plan) -> list[str]:
    writer = _Writer({n: n.name for n in step.nodes if n.name and not isinstance(n.kind, Leaf)}, latex=False)

    def names(nodes: tuple[Node, ...]) -> str:
        return ", ".join(map(writer.write, nodes)) or "nothing"

    return [
        f"saved for the backward step, beside inputs, states and output: {names(both.saved)}",
        f"computed again there: {names(both.recomputed)}",
    ]
