"""Every cell against the NumPy transcription of its paper: outputs, states, and gradients derived by hand."""

import numpy as np
import pytest
import torch

from cases import CASES, every_case, random_given
from oracles import recurrent

# float64 on both sides; what differs is the order of some sums.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
STEPS, BATCH = 6, 3


def arrays(values):
    return {name: value.detach().numpy().copy() for name, value in values.items()}


def close(got, expected, what):
    np.testing.assert_allclose(got.detach().numpy(), expected, **CLOSE, err_msg=what)


def as_oracle_takes(case, given):
    """Inputs, states and options as the transcription takes them."""
    inputs = arrays(given.inputs)
    options = dict(case.oracle_options)
    if given.context:
        options["context"] = arrays(given.context)
    state = given.state._asdict()
    if "time" in state:  # where the count of the steps starts
        starts = state.pop("time")
        assert (starts == starts.view(-1)[0]).all()
        options["start"] = int(starts.view(-1)[0])
    start = {name: part[0].detach().numpy().copy() for name, part in state.items()}
    return inputs if len(inputs) > 1 else next(iter(inputs.values())), start, options


def same_time(given):
    """Sequences that are equally old, which is all a transcription knows."""
    if "time" in getattr(given.state, "_fields", ()):
        given.state.time.fill_(3)
    return given


@every_case
def test_outputs_and_states_at_every_step(case):
    layer = case.layer()
    given = same_time(random_given(layer, STEPS, BATCH))
    x, start, options = as_oracle_takes(case, given)
    outputs, finals, states = case.oracle.run(x, start, arrays(layer.layers[0].values()), **options)
    output, final = given.call(layer)
    close(output, outputs, "output")
    for name in start:
        close(getattr(final, name)[0], finals[name], name)
    state = given.state
    for t in range(STEPS):  # what each step leaves, seen from outside
        _, state = given.step(layer, t, state)
        for name in start:
            close(getattr(state, name)[0], states[name][t], f"{name} after step {t}")


@pytest.mark.parametrize("case", [case for case in CASES if hasattr(case.oracle, "gradients")], ids=str)
def test_all_gradients(case):
    layer = case.layer()
    given, _ = random_given(layer, STEPS, BATCH).with_gradients()
    x, start, options = as_oracle_takes(case, given)
    output, final = given.call(layer)
    d_output, d_final = torch.randn_like(output), [torch.randn_like(part) for part in final]
    torch.autograd.backward([output, *final], [d_output, *d_final])
    d_states = {name: part[0].numpy() for name, part in zip(layer.cell.state, d_final, strict=True)}
    parameters = arrays(layer.layers[0].values())
    dx, d_start, dp = case.oracle.gradients(x, start, parameters, d_output.numpy(), d_states, **options)
    close(given.inputs["x"].grad, dx, "x")
    for name, part in given.state._asdict().items():
        close(part.grad[0], d_start[name], name)
    assert dp.keys() == dict(layer.layers[0].named_parameters()).keys()
    for name, p in layer.layers[0].named_parameters():
        close(p.grad, dp[name], name)


def test_the_cells_of_the_first_papers_have_gradients_derived_by_hand():
    derived = {type(case.cell).__name__ for case in CASES if hasattr(case.oracle, "gradients")}
    assert {"Elman", "IRNN", "Jordan", "LSTM", "PeepholeLSTM", "CoupledLSTM", "GRU", "GRUResetAfter"} <= derived


def plain(case):
    """Whether the transcription of the layer around a cell takes it: one input, no context, no counting."""
    graph = case.cell.graph
    return len(graph.inputs) == 1 and not graph.context and not graph.ambient


@pytest.mark.parametrize("case", [case for case in CASES if plain(case)], ids=str)
def test_deep_bidirectional_and_ragged(case):
    layer = case.layer(num_layers=2, bidirectional=True)
    lengths = torch.tensor([4, 0, 6, 1])
    given = random_given(layer, STEPS, 4)
    parameters = [[arrays(a.values()), arrays(b.values())] for a, b in zip(layer.layers, layer.layers_reverse, strict=True)]

    def part_of(state, layer_number, direction):
        at = 2 * layer_number + direction
        parts = state._asdict() if hasattr(state, "_fields") else state[at]._asdict()
        return {name: (part[at] if hasattr(state, "_fields") else part).detach().numpy() for name, part in parts.items()}

    starts = [[part_of(given.state, number, d) for d in range(2)] for number in range(2)]
    x = given.inputs["x"].numpy()
    outputs, finals = (run_pictures if x.ndim > 3 else recurrent.run)(
        case.oracle, x, lengths.numpy(), parameters, starts, **case.oracle_options
    )
    output, final = given.call(layer, lengths)
    close(output, outputs, "output")
    for number in range(2):
        for d in range(2):
            for name, part in part_of(final, number, d).items():
                np.testing.assert_allclose(part, finals[number][d][name], **CLOSE, err_msg=name)


def run_pictures(oracle, x, lengths, parameters, starts, **options):
    """The layer's transcription, which knows vectors only, for values with more axes: a row at a time, by hand."""
    T, B = x.shape[:2]
    inputs, finals = x, []
    for layer_parameters, layer_starts in zip(parameters, starts, strict=True):
        sides, layer_finals = [], []
        for d in range(2):
            H = layer_starts[d]["h"].shape[1]
            side, final = np.zeros((T, B, H, *x.shape[3:])), {n: v.copy() for n, v in layer_starts[d].items()}
            for b, n in enumerate(lengths):
                row = inputs[:n, b : b + 1][:: -1 if d else 1]
                start = {name: value[b : b + 1] for name, value in layer_starts[d].items()}
                out, last, _ = oracle.run(row, start, layer_parameters[d], **options)
                side[:n, b] = out[:, 0][:: -1 if d else 1]
                for name in final:
                    final[name][b] = last[name][0]
            sides.append(side)
            layer_finals.append(final)
        inputs = np.concatenate(sides, 2)
        finals.append(layer_finals)
    return inputs, finals
