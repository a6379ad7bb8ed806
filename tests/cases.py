"""The cells that tests run over, and layers with random weights.

Weights and initial states are random wherever a number is checked: with equal weights gates can be swapped unseen, and with
a zero state the recurrent matrix does not matter at the first step.
"""

import importlib
import inspect
from dataclasses import dataclass, field
from types import ModuleType

import pytest
import torch

from carousel.cells import CELLS, cell_name, resolve_cell
from carousel.graph import Cell
from carousel.graph.kinds import Role
from carousel.nn import Recurrent
from interpreter import Call

#: Options that fit small sizes, where the defaults do not.
SMALL = {
    "attention_gru": {"memory_size": 3, "attention_size": 2},
    "clockwork_rnn": {"modules": 2},
    "lstmp": {"proj_size": 3},
    "mlstm": {"heads": 2},
    "rhn": {"depth": 2},
    "slstm": {"heads": 2},
}
#: Input and hidden size, where (3, 4) does not do.
SIZES = {"conv_lstm": ((2, 3, 2), 2)}
#: Values that are 1 or 0, and values that are never negative, by name.
INDICATORS, POSITIVE = {"m", "mask"}, {"d"}
SLOTS = 5  # what a context's own axis is long


@dataclass(frozen=True)
class Case:
    """A cell, sizes that fit it, and its NumPy transcription."""

    cell: Cell

    @property
    def sizes(self) -> tuple:
        return SIZES.get(cell_name(self.cell), (3, 4))

    @property
    def oracle(self) -> ModuleType:
        return importlib.import_module(f"oracles.{cell_name(self.cell)}")

    @property
    def oracle_options(self) -> dict:
        """The options that change the equations, which are those the transcription takes."""
        takes = inspect.signature(self.oracle.run).parameters
        return {name: value for name, value in self.cell.options().items() if name in takes}

    def depth(self, layers: int) -> int:
        """A cell with several inputs cannot run on its own output."""
        return layers if len(self.cell.inputs) == 1 else 1

    def layer(self, *, num_layers: int = 1, **options) -> Recurrent:
        return random_layer(self.cell, *self.sizes, num_layers=self.depth(num_layers), **options)

    def __str__(self) -> str:
        default = type(self.cell)(**SMALL.get(cell_name(self.cell), {}))
        changed = [f"{value}" for name, value in self.cell.options().items() if value != getattr(default, name)]
        return "-".join([cell_name(self.cell), *changed])


def small(name: str) -> Case:
    return Case(resolve_cell(name, SMALL.get(name)))


CASES = [
    *map(small, CELLS),
    Case(resolve_cell("elman", {"activation": "sigmoid"})),
    Case(resolve_cell("elman", {"activation": "relu"})),
    Case(resolve_cell("elman", {"activation": "identity"})),
    Case(resolve_cell("peephole_lstm", {"output_gate": "old"})),
    Case(resolve_cell("jordan", {"activation": "tanh", "output_activation": "softmax"})),
    Case(resolve_cell("jordan", {"output_activation": "softmax", "trace": 0.5})),
    Case(resolve_cell("jordan", {"output_activation": "tanh", "trace": 0.3})),
    Case(resolve_cell("indrnn", {"activation": "tanh"})),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_cell = pytest.mark.parametrize("case", list(map(small, CELLS)), ids=str)


def random_layer(cell, input_size=3, hidden_size=4, *, dtype=torch.float64, scale=0.6, **options) -> Recurrent:
    """A layer in which every parameter is random, biases too; constants that the cell fills itself stay."""
    layer = Recurrent(cell, input_size, hidden_size, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, scale)
        for buffer in layer.buffers():
            if not buffer.any():
                buffer.normal_(0.0, scale)
    return layer


def each(function, *states):
    """`function` of each tensor of one or several states of one structure."""
    first = states[0]
    if isinstance(first, torch.Tensor):
        return function(*states)
    parts = [each(function, *part) for part in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def tensors(state) -> list[torch.Tensor]:
    """The tensors of a state, however they are nested."""
    return [state] if isinstance(state, torch.Tensor) else [tensor for part in state for tensor in tensors(part)]


def floating(state) -> list[torch.Tensor]:
    return [tensor for tensor in tensors(state) if tensor.is_floating_point()]


def random_state(layer: Recurrent, batch: int, *, scale: float = 0.7):
    """Initial states that are not zero. A normaliser is positive; a step number is whole."""
    positive = cell_name(layer.cell) in ("slstm", "mlstm")

    def fill(name, zeros):
        if not zeros.is_floating_point():
            return torch.randint_like(zeros, 0, 5)
        values = torch.randn_like(zeros) * scale
        return values.abs() + 0.5 if positive and name == "n" else values

    zeros = layer.initial_state(batch)
    if not hasattr(zeros, "_fields"):
        return tuple(type(part)(*map(fill, part._fields, part)) for part in zeros)
    return type(zeros)(*map(fill, zeros._fields, zeros))


@dataclass
class Given:
    """What a layer is called with: inputs (T, B, ...) and context (B, ...) by name, and the initial states."""

    inputs: dict
    state: object
    context: dict = field(default_factory=dict)

    def call(self, layer: Recurrent, lengths=None):
        inputs = {n: v.transpose(0, 1) for n, v in self.inputs.items()} if layer.batch_first else self.inputs
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        return layer(x, self.state, lengths, **({"context": self.context} if self.context else {}))

    def step(self, layer: Recurrent, t: int, state):
        x = {name: value[t] for name, value in self.inputs.items()}
        x = x if len(x) > 1 else next(iter(x.values()))
        return layer.step(x, state, **({"context": self.context} if self.context else {}))

    def rows(self, index):
        """Some rows of the batch: a slice or a list."""
        counted = hasattr(self.state, "_fields")
        return Given(
            {name: value[:, index] for name, value in self.inputs.items()},
            each(lambda part: part[:, index] if counted else part[index], self.state),
            {name: value[index] for name, value in self.context.items()},
        )

    def steps(self, index, state=None):
        """Some steps."""
        inputs = {name: value[index] for name, value in self.inputs.items()}
        return Given(inputs, self.state if state is None else state, self.context)

    def with_gradients(self):
        """Copies that gradients can be asked of, and those."""

        def leaf(value):
            return value.detach().clone().requires_grad_(value.is_floating_point())

        given = Given(
            {n: leaf(v) for n, v in self.inputs.items()},
            each(leaf, self.state),
            {n: leaf(v) if n not in INDICATORS else v for n, v in self.context.items()},
        )
        asked = [*given.inputs.values(), *floating(given.state), *(v for v in given.context.values() if v.requires_grad)]
        return given, asked


def random_given(layer: Recurrent, steps: int, batch: int, *, dtype=torch.float64) -> Given:
    """Random inputs, states and context for a layer."""
    sizes = {**layer.layers[0].sizes}
    for node in layer.cell.graph.context.values():
        sizes.update({axis: SLOTS for axis in node.shape if isinstance(axis, str) and axis not in sizes})

    def make(name, node, *lead):
        shape = (*lead, *(sizes.get(axis, axis) for axis in node.shape))
        value = torch.randn(shape, dtype=dtype)
        if name in INDICATORS:
            value = (value > -0.3).to(dtype)
            value[..., 0] = 1.0  # a memory has a real slot at least
        return value.abs() if name in POSITIVE else value

    return Given(
        {name: make(name, node, steps, batch) for name, node in layer.cell.graph.inputs.items()},
        random_state(layer, batch),
        {name: make(name, node, batch) for name, node in layer.cell.graph.context.items()},
    )


def a_call(layer: Recurrent, steps: int, batch: int) -> Call:
    """The same as what the interpreters take, for the first layer of `layer`."""
    given, module = random_given(layer, steps, batch), layer.layers[0]
    own = {axis for node in layer.cell.graph.context.values() for axis in node.shape} - module.sizes.keys()
    sizes = {**module.sizes, **dict.fromkeys(own, SLOTS)}
    states = {name: part[0] for name, part in given.state._asdict().items() if name in layer.cell.state}
    ambient = {Role.TIME: torch.arange(steps)[:, None, None].expand(steps, batch, 1)}
    output = given.steps(slice(None), each(torch.zeros_like, given.state)).call(layer)[0]
    return Call(
        inputs=given.inputs,
        states=states,
        parameters={name: value.detach() for name, value in module.values().items()},
        sizes=sizes,
        shape=(steps, batch),
        d_output=torch.randn_like(output),
        d_final={name: torch.randn_like(part) for name, part in states.items()},
        context=given.context,
        ambient={role: ambient[role] for role in layer.cell.graph.ambient},
    )


def call_layer(layer: Recurrent, call: Call):
    """The layer's own output and final states for such a call."""
    state = [part[None] for part in call.states.values()]
    if "time" in layer.initial_state(1)._fields:
        state.append(torch.zeros(1, call.shape[1], 1, dtype=torch.long))
    output, final = Given(call.inputs, type(layer.initial_state(1))(*state), call.context).call(layer)
    return output, {name: getattr(final, name)[0] for name in call.states}


def leaves(*values):
    """Copies that gradients can be asked of."""
    return tuple(value.detach().clone().requires_grad_() for value in values)
