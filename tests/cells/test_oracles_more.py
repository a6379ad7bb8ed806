"""The newer cells against their NumPy transcriptions: every option that changes the equations, and layers around them.

`test_oracles` runs every cell in its small build; here are other option values, weights large enough to saturate gates,
and, for cells with several inputs, a context or a clock, deep, bidirectional and ragged layers.
"""

import numpy as np
import pytest
import torch

from builds import NEWER, random_given, random_layer, run, small, step

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # float64 on both sides; what differs is the order of some sums
STEPS, BATCH = 7, 4
LENGTHS = torch.tensor([4, 0, 7, 1])
every_variant = pytest.mark.parametrize("case", NEWER, ids=str)


def arrays(values):
    return {name: value.detach().numpy().copy() for name, value in values.items()}


def sizes_of(case):
    """Sizes that are not those of the small builds, so that no axis is right by accident."""
    return ((2, 4, 3), 4) if isinstance(case.sizes[0], tuple) else (5, 4)


def start_of(given, part=0):
    """The states of one layer and direction, without the clock, and where the clock starts."""
    parts = given.state._asdict() if hasattr(given.state, "_fields") else None
    state = {n: v[part] for n, v in parts.items()} if parts is not None else given.state[part]._asdict()
    clock = state.pop("time", None)
    return arrays(state), clock


def transcribed(case, inputs, start, parameters, clock, context):
    """One run of the transcription for one row: (outputs, final, states)."""
    options = dict(case.oracle_options)
    if clock is not None:
        options["start"] = int(clock)
    if context:
        options["context"] = context
    x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    return case.oracle.run(x, start, parameters, **options)


def rows(values, b, axis):
    return {name: np.take(value, [b], axis) for name, value in values.items()}


@every_variant
@pytest.mark.parametrize("scale", [0.6, 3.0], ids=["", "saturated"])
def test_outputs_and_states_at_every_step(case, scale):
    layer = random_layer(case.cell, *sizes_of(case), scale=scale)
    given = random_given(layer, STEPS, BATCH)
    inputs, context, parameters = arrays(given.inputs), arrays(given.context), arrays(layer.layers[0].values())
    start, clock = start_of(given)
    output, final = run(layer, given)
    stepped, state = [], given.state
    for t in range(STEPS):
        _, state = step(layer, given, t, state)
        stepped.append(state)
    for b in range(BATCH):  # sequences may differ in age, so each has its own run
        time = None if clock is None else clock[b]
        outputs, finals, states = transcribed(
            case, rows(inputs, b, 1), rows(start, b, 0), parameters, time, rows(context, b, 0)
        )
        np.testing.assert_allclose(output[:, b : b + 1].detach().numpy(), outputs, **CLOSE)
        for name in start:
            np.testing.assert_allclose(getattr(final, name)[0, b : b + 1].detach().numpy(), finals[name], **CLOSE)
            for t, after in enumerate(stepped):
                got = getattr(after, name)[0, b : b + 1].detach().numpy()
                np.testing.assert_allclose(got, states[name][t], **CLOSE, err_msg=f"{name} after step {t}")


def around(case, layer, given, lengths):
    """The layer around a cell, transcribed: each row alone, on its real steps only; backwards, on those flipped."""
    directions, layers = 1 + layer.bidirectional, layer.num_layers
    inputs, context = arrays(given.inputs), arrays(given.context)
    finals = []
    for at in range(layers * directions):
        number, direction = divmod(at, directions)
        parameters = arrays((layer.layers_reverse if direction else layer.layers)[number].values())
        start, clock = start_of(given, at)
        side, final = None, {name: value.copy() for name, value in start.items()}
        for b, n in enumerate(lengths.tolist()):
            flip = -1 if direction or layer.reverse else 1
            row = {name: value[:n, b : b + 1][::flip] for name, value in inputs.items()}
            time = None if clock is None else clock[b]
            out, last, _ = transcribed(case, row, rows(start, b, 0), parameters, time, rows(context, b, 0))
            if side is None:
                side = np.zeros((STEPS, len(lengths), *out.shape[2:]))
            side[:n, b] = out[::flip, 0]
            for name in final:
                final[name][b] = last[name][0]
        sides = [side] if direction == 0 else [*sides, side]
        finals.append(final)
        if direction == directions - 1:
            inputs = {case.cell.inputs[0]: np.concatenate(sides, 2)}
    return inputs[case.cell.inputs[0]], finals


@every_variant
@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}], ids=["both ways", "reverse"])
def test_deep_and_ragged(case, options):
    layer = random_layer(case.cell, *sizes_of(case), num_layers=case.depth(2), **options)
    given = random_given(layer, STEPS, BATCH)
    expected, finals = around(case, layer, given, LENGTHS)
    output, final = run(layer, given, LENGTHS)
    np.testing.assert_allclose(output.detach().numpy(), expected, **CLOSE)
    for at, part in enumerate(finals):
        for name, value in part.items():
            got = getattr(final, name)[at] if hasattr(final, "_fields") else getattr(final[at], name)
            np.testing.assert_allclose(got.detach().numpy(), value, **CLOSE, err_msg=f"{name} of part {at}")


def test_what_the_mask_hides_of_a_memory_is_never_read():
    """As padding of a sequence: a NaN there reaches neither results nor gradients."""
    case = small("attention_gru")
    layer = random_layer(case.cell, *case.sizes)
    given = random_given(layer, STEPS, BATCH)
    given.context["mask"][:, 2:] = 0.0
    hidden = given.context["mask"] == 0
    results = []
    for fill in (0.0, float("nan")):
        memory = given.context["memory"].masked_fill(hidden[..., None], fill).requires_grad_()
        layer.zero_grad()
        output, _ = layer(given.inputs, given.state, context={"memory": memory, "mask": given.context["mask"]})
        output.square().sum().backward()
        results.append([output, memory.grad, *(p.grad for p in layer.parameters())])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(clean, poisoned)
    assert (results[0][1][hidden] == 0).all()
