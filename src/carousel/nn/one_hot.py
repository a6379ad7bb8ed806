"""Numbers in place of one-hot vectors: a product with one is a column of the matrix, so it is looked up, not computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from carousel.errors import ConfigError, explain
from carousel.graph.kinds import Dense, Leaf, Role
from carousel.graph.node import Node
from carousel.graph.shapes import Sizes, concrete
from carousel.graph.step import Step
from carousel.graph.symbol import Symbol
from carousel.graph.transforms.rewriting import Rewriting


def is_numbers(x: Tensor) -> bool:
    """Whether these are numbers of classes, not features."""
    return x.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)


def one_hot(numbers: Tensor, size: int, like: Tensor) -> Tensor:
    """Vectors with a 1 where the number says; numbers in the padding may be any."""
    return torch.nn.functional.one_hot(numbers.long().clamp(0, size - 1), size).to(like.dtype)


def check_range(name: str, numbers: Tensor, size: int, who: str) -> None:
    """Check the numbers that are not padding.

    Raises:
        ConfigError: one is negative, or not below the size of the input.
    """
    if not numbers.numel():
        return
    low, high = (int(end) for end in torch.aminmax(numbers))
    if low < 0 or high >= size:
        got = f"{low if low < 0 else high}"
        raise ConfigError(explain(f"{who}: `{name}` holds a number of no class.", got=got, expected=f"0 to {size - 1}"))


@dataclass(frozen=True)
class _LookUp:
    """A step whose products with an input are inputs themselves.

    Attributes:
        step: the rewritten step.
        columns: for each new input the old one, and the matrix whose columns it takes.
    """

    step: Step
    columns: Mapping[str, tuple[str, str]]


class LookUps:
    """Rewrites the calls of a first layer whose inputs are numbers."""

    def __init__(self) -> None:
        self._found: dict[tuple[Step, frozenset[str]], _LookUp] = {}

    def apply(
        self, step: Step, inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor], sizes: Sizes
    ) -> tuple[Step, Mapping[str, Tensor]]:
        """A step and its inputs, with products looked up.

        Args:
            step: the traced cell.
            inputs: by name, packed: vectors (rows, I), or numbers (rows,), whose range was checked.
            parameters: by name.
            sizes: the size of each axis letter.

        Returns:
            The step to run and its inputs. Where an equation reads more of an input than its products with a matrix, that
            input becomes one-hot vectors.
        """
        numbers = frozenset(name for name, x in inputs.items() if is_numbers(x))
        if not numbers:
            return step, inputs
        if (step, numbers) not in self._found:
            self._found[step, numbers] = _looked_up(step, numbers)
        found = self._found[step, numbers]
        values: dict[str, Tensor] = {}
        for name in found.step.inputs:
            if name in found.columns:
                source, matrix = found.columns[name]
                values[name] = parameters[matrix].index_select(1, inputs[source].long()).mT
            elif name in numbers:
                values[name] = one_hot(
                    inputs[name], concrete(step.inputs[name].shape, sizes)[0], next(iter(parameters.values()))
                )
            else:
                values[name] = inputs[name]
        return found.step, values


def _looked_up(step: Step, numbers: frozenset[str]) -> _LookUp:
    """Make an input of every product of a learned matrix with one of these inputs, where nothing else reads that input."""
    leaves = {step.inputs[name]: name for name in numbers}
    learned = {parameter.node: name for name, parameter in step.parameters.items()}
    readers: dict[Node, list[Node]] = {leaf: [] for leaf in leaves}
    for node in step.nodes:
        for leaf in leaves.keys() & set(node.args):
            readers[leaf].append(node)

    def is_product(node: Node, leaf: Node) -> bool:
        return node.kind == Dense() and len(node.args) == 2 and node.args[1] is leaf and node.args[0] in learned

    taken = {leaf for leaf, found in readers.items() if all(is_product(node, leaf) for node in found)}
    taken -= set(step.results)
    if not taken:
        return _LookUp(step, {})
    work, made, columns = Rewriting(step), dict[str, Node](), dict[str, tuple[str, str]]()

    def value(node: Node, symbol: Symbol) -> Symbol:
        if not (len(node.args) == 2 and node.args[1] in taken):
            return symbol
        matrix, source = learned[node.args[0]], leaves[node.args[1]]
        name = f"{matrix} {source}"
        leaf = work.builder.node(Leaf(Role.INPUT, name, node.shape))
        leaf.name, made[name], columns[name] = name, leaf, (source, matrix)
        return work.builder.wrap(leaf)

    rewritten = work.run(value=value)
    kept = {name: leaf for name, leaf in step.inputs.items() if leaf not in taken}
    return _LookUp(replace(rewritten, inputs={**kept, **made}), columns)
