"""What the batteries run over beyond one small build of each cell: option values, transforms, and ways to call a layer.

`cases` says how each cell is built small; a new cell without special needs takes part in every battery by itself.
"""

import pytest
import torch

from carousel.nn import (
    ClipState,
    InputDropout,
    Normalise,
    Recurrent,
    RecurrentDropout,
    StateDropout,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from cases import CELLS, SIZES, SMALL, Case, Given, random_given, random_layer, resolve_cell, small

#: Values of options that change the equations, beyond the small build's, for the cells that came after the first eight.
OPTIONS = {
    "attention_gru": [{"memory_size": 1, "attention_size": 5}, {"memory_size": 6, "attention_size": 1}],
    "clockwork_rnn": [{"modules": 1}, {"modules": 4}],
    "conv_lstm": [{"kernel_size": 1}, {"kernel_size": 5}],
    "indrnn": [{"activation": "tanh"}, {"activation": "sigmoid"}],
    "layer_norm_lstm": [{"eps": 1e-2}, {"eps": 1e-8}],
    "lstmp": [{"proj_size": 1}, {"proj_size": 6}],
    "mlstm": [{"heads": 1}, {"heads": 4}],
    "rhn": [{"depth": 1}, {"depth": 4}],
    "slstm": [{"heads": 1}, {"heads": 4}],
}
FIRST_EIGHT = ("elman", "irnn", "jordan", "lstm", "peephole_lstm", "coupled_lstm", "gru", "gru_reset_after")


def variants(name: str) -> list[Case]:
    """The small build of a cell, then its other option values."""
    made = [small(name)]
    return made + [Case(resolve_cell(name, {**SMALL.get(name, {}), **options})) for options in OPTIONS.get(name, [])]


NEWER = [case for name in CELLS if name not in FIRST_EIGHT for case in variants(name)]

#: Transforms by a name for test ids. Each of the first draws noise in training; the others do the same in both modes.
NOISY = {
    "input dropout": InputDropout(0.3),
    "state dropout": StateDropout(0.4),
    "variational dropout": VariationalDropout(0.3, 0.4),
    "recurrent dropout": RecurrentDropout(0.3),
    "recurrent dropout by sequence": RecurrentDropout(0.3, per="sequence"),
    "zoneout": Zoneout(0.3),
    "weight drop": WeightDrop(0.4, "*"),
}
QUIET = {"layer norm": Normalise("layer"), "rms norm": Normalise("rms"), "clip": ClipState(0.5)}
TRANSFORMS = {**NOISY, **QUIET}
every_noisy = pytest.mark.parametrize("transform", NOISY.values(), ids=NOISY)
#: Without those whose graph another has too: two dropouts at once, a mask by sequence, a norm without the mean.
LEAST = {n: t for n, t in TRANSFORMS.items() if n not in ("variational dropout", "recurrent dropout by sequence", "rms norm")}
every_least = pytest.mark.parametrize("transform", LEAST.values(), ids=LEAST)
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)

#: No product of these sees a state, so there is nothing for state dropout to drop.
NO_STATE_IN_PRODUCTS = ("indrnn", "mingru", "minlstm", "mlstm", "sru")


def idle(name: str, transform) -> bool:
    """Whether a transform has nothing to act on in a cell."""
    return isinstance(transform, StateDropout) and name in NO_STATE_IN_PRODUCTS


def run(layer: Recurrent, given: Given, lengths=None, **more):
    """Call a layer with everything by name."""
    return layer(given.inputs, given.state, lengths, context=given.context or None, **more)


def step(layer: Recurrent, given: Given, t: int, state, **more):
    """One step of the same call."""
    inputs = {name: value[t] for name, value in given.inputs.items()}
    return layer.step(inputs, state, context=given.context or None, **more)


def visible(transform, size: int, *, layers: int = 1, bidirectional: bool = False, candidate: float = 1.0) -> Recurrent:
    """A layer that shows its masks: h' = candidate whatever the input and the state, before the transform acts on it."""
    cell = resolve_cell("elman", {"activation": "identity"})
    transforms = transform if isinstance(transform, tuple) else (transform,)
    layer = Recurrent(cell, size, size, num_layers=layers, bidirectional=bidirectional, transforms=transforms)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(candidate if name.endswith("b_h") else 0.0)
    return layer


def copying(transform, size: int) -> Recurrent:
    """A layer that shows what it sees of its input: h' = x."""
    layer = visible(transform, size, candidate=0.0)
    with torch.no_grad():
        layer.layers[0].W_h.copy_(torch.eye(size))
    return layer


__all__ = [
    "CELLS",
    "FIRST_EIGHT",
    "LEAST",
    "NEWER",
    "NOISY",
    "QUIET",
    "SIZES",
    "TRANSFORMS",
    "Case",
    "Given",
    "copying",
    "every_least",
    "every_noisy",
    "every_transform",
    "idle",
    "random_given",
    "random_layer",
    "run",
    "small",
    "step",
    "variants",
    "visible",
]
