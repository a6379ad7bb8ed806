"""Layers on the compiled engine beside the same layers on the eager one: outputs, states, and all gradients.

Random weights, states that are not zero, odd sizes. What should not matter to a result does not, to the bit: who shares the
work, what is in the padding, what was in memory before.
"""

import copy
import functools

import pytest
import torch
from torch.utils import deterministic

from carousel.engines.cpu import engine, workspace
from carousel.engines.cpu import run as engine_run
from carousel.engines.cpu.team import Team
from cases import Given, each, floating, random_given
from compiled import TEAMS, assert_close, assert_same_bits, distance, given_call, outcome, twins

# Relative to 1 + the largest number, against the eager engine in float64; 4e-15 was measured. In float32 the eager engine's own
# distance from its float64, times 4, comes on top: random weights make some cells sensitive.
CLOSE = {torch.float64: 1e-12, torch.float32: 5e-6}
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=["double", "single"])

#: T, B, I, H.
SHAPES = {
    "odd": (63, 7, 500, 500), "one number": (5, 7, 1, 1), "one row": (9, 1, 17, 17), "many rows": (4, 300, 17, 24),
    "one step": (1, 7, 3, 17), "no step": (0, 3, 3, 4), "no row": (5, 0, 3, 4), "wide input": (3, 3, 1000, 6),
}  # fmt: skip
#: Shapes of memory: products and gates, a product of a reset state, sums over a row, matrices as states, heads, no product.
CELLS = ["lstm", "gru", "layer_norm_lstm", "mlstm", "indrnn", "attention_gru"]
each_cell = pytest.mark.parametrize("name", CELLS)


def to(given: Given, dtype) -> Given:
    """Floating values in another dtype."""

    def turn(value):
        return value.to(dtype) if value.is_floating_point() else value

    return Given(
        {n: turn(v) for n, v in given.inputs.items()}, each(turn, given.state), {n: turn(v) for n, v in given.context.items()}
    )


def assert_twins_agree(layer, eager, given, lengths=None):
    """The compiled layer, against the eager one in float64."""
    dtype = next(layer.parameters()).dtype
    same = outcome(eager, to(given, dtype), lengths)
    expected = outcome(copy.deepcopy(eager).double(), to(given, torch.float64), lengths)
    got = outcome(layer, to(given, dtype), lengths)
    assert all(value.dtype == dtype for value in got.values())
    assert_close(got, expected, CLOSE[dtype] + (4 * distance(same, expected) if dtype == torch.float32 else 0.0))


def test_the_compiled_loop_is_what_runs(monkeypatch):
    layer, eager = twins("lstm")
    given = random_given(layer, 3, 2)
    ran = []
    together = engine_run.threads.run
    monkeypatch.setattr(engine_run.threads, "run", lambda jobs, count: (ran.append(len(jobs)), together(jobs, count)))
    outcome(layer, given)
    assert ran == [1, 1]  # forwards and backwards
    outcome(eager, given)
    assert ran == [1, 1]
    outcome(twins("lstm", bidirectional=True)[0], random_given(twins("lstm", bidirectional=True)[0], 3, 2))
    assert ran == [1, 1, 2, 2]  # both directions at once


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_odd_sizes(name, shape, dtype):
    T, B, inputs, H = SHAPES[shape]
    scale = min(0.6, 2 / (inputs + H) ** 0.5)  # numbers stay where nothing saturates
    layer, eager = twins(name, inputs, H, dtype=dtype, scale=scale)
    assert_twins_agree(layer, eager, random_given(eager, T, B))


LENGTHS = {
    "ragged": (9, [9, 3, 7, 1, 9]), "with none": (6, [0, 6, 2, 0]), "none at all": (6, [0, 0, 0]),
    "shorter than T": (7, [4, 2]), "equal, shorter": (7, [4, 4]),
}  # fmt: skip


@DTYPES
@pytest.mark.parametrize("lengths", LENGTHS)
@each_cell
def test_lengths(name, lengths, dtype):
    T, counts = LENGTHS[lengths]
    layer, eager = twins(name, 5, 12, dtype=dtype)
    assert_twins_agree(layer, eager, random_given(eager, T, len(counts)), torch.tensor(counts))


BUILDS = {
    "both directions": {"bidirectional": True},
    "three layers, both directions": {"bidirectional": True, "num_layers": 3},
    "backwards": {"reverse": True},
    "two layers of two sizes": {"num_layers": 2, "hidden_size": (9, 4)},
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("counts", [None, [5, 0, 3, 4]], ids=["dense", "ragged"])
@pytest.mark.parametrize("name", ["lstm", "gru", "indrnn"])
def test_layers_and_directions(name, counts, build):
    layer, eager = twins(name, 3, **{"hidden_size": 10, **BUILDS[build]})
    lengths = None if counts is None else torch.tensor(counts)
    assert_twins_agree(layer, eager, random_given(eager, 5, 4), lengths)


# --- memory as it comes -----------------------------------------------------------------------------------------------


def strided(x):
    """The same numbers, every second place of a larger piece of memory."""
    big = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), 7e7)
    big[..., ::2] = x
    return big[..., ::2]


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "sliced": lambda x: torch.cat([torch.full_like(x, 7e7), x, torch.full_like(x, 7e7)], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "strided": strided,
    "turned": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "expanded": lambda x: x[:, :1].expand_as(x),
    "one number": lambda x: x[..., :1, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@each_cell
def test_memory_layouts(name, layout):
    layer, _ = twins(name, 5, 8)
    given = random_given(layer, 4, 3)
    place = LAYOUTS[layout]
    odd = Given(
        {n: place(v) for n, v in given.inputs.items()},
        each(lambda part: place(part) if part.dim() == 3 else part, given.state),
        given.context,
    )
    plain = Given({n: v.contiguous() for n, v in odd.inputs.items()}, each(torch.Tensor.contiguous, odd.state), odd.context)
    assert not next(iter(odd.inputs.values())).is_contiguous()
    directions = torch.randn(4, 3, layer.output_size, dtype=torch.float64)
    found = []
    for each_given in (odd, plain):  # leaves keep their layout here
        for value in (*each_given.inputs.values(), *floating(each_given.state)):
            value.requires_grad_()
        output, final = given_call(layer, each_given)
        direction = place(directions) if each_given is odd else place(directions).contiguous()
        sources = [*each_given.inputs.values(), *floating(each_given.state), *layer.parameters()]
        gradients = torch.autograd.grad([output, *floating(final)], sources, [direction, *floating(final)])
        found.append(dict(enumerate([output.detach(), *(part.detach() for part in floating(final)), *gradients])))
    assert_close(found[0], found[1], 1e-13)  # torch's products may take another way for another layout


@each_cell
def test_weights_of_any_layout(name):
    layer, eager = twins(name, 5, 8)
    for parameter in layer.parameters():
        parameter.data = strided(parameter.data) if parameter.dim() else parameter.data
    assert_twins_agree(layer, eager, random_given(eager, 4, 3))


@pytest.mark.parametrize("build", [{}, {"bidirectional": True}], ids=["one direction", "both"])
@each_cell
def test_what_is_in_the_padding_changes_nothing(name, build):
    layer, _ = twins(name, 5, 8, **build)
    given, lengths = random_given(layer, 6, 4), torch.tensor([6, 2, 0, 4])
    padding = torch.arange(6)[:, None] >= lengths
    dirty = Given(
        {n: v.masked_fill(padding[..., None], torch.nan) for n, v in given.inputs.items()}, given.state, given.context
    )
    found = outcome(layer, dirty, lengths)
    assert all(value.isfinite().all() for value in found.values())
    assert_same_bits(found, outcome(layer, given, lengths))


@pytest.fixture
def dirty_memory():
    """New memory is full of NaN."""
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = True
    workspace._kept.__dict__.clear()
    assert torch.empty(3).isnan().all()
    assert torch.zeros(1).new_empty(3).isnan().all()
    assert torch.empty(64, dtype=torch.uint8).view(torch.float64).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0])
    deterministic.fill_uninitialized_memory = before[1]
    workspace._kept.__dict__.clear()


@pytest.mark.parametrize("counts", [None, [6, 2, 0, 4]], ids=["dense", "ragged"])
@pytest.mark.parametrize("size", [8, 13])
@each_cell
def test_what_was_in_memory_changes_nothing(name, size, counts, request):
    both = size == 13
    layer, _ = twins(name, 5, 12 if both and name == "mlstm" else size, bidirectional=both)  # heads divide the size
    given, lengths = random_given(layer, 6, 4), None if counts is None else torch.tensor(counts)
    expected = outcome(layer, given, lengths)
    request.getfixturevalue("dirty_memory")
    assert_same_bits(outcome(layer, given, lengths), expected)


# --- who shares the work, and with whom ------------------------------------------------------------------------------


@pytest.fixture
def split(monkeypatch):
    """Sets how loops are shared."""
    before = torch.get_num_threads()

    def setting(team: Team):
        monkeypatch.setattr(engine, "run_together", functools.partial(engine_run.run_together, team=team))
        torch.set_num_threads(team.members)

    yield setting
    torch.set_num_threads(before)


@pytest.mark.parametrize("counts", [None, [5, 1, 0, 4, 5, 3, 5]], ids=["dense", "ragged"])
@pytest.mark.parametrize("dtype", CLOSE, ids=["double", "single"])
@each_cell
def test_results_do_not_depend_on_the_number_of_threads(name, dtype, counts, split):
    """To the bit, but for the parameters' gradients: sums over all rows are torch's products, cut by the number of threads."""
    layer, _ = twins(name, 19, 40, dtype=dtype)
    given = to(random_given(layer, 5, 7), dtype)
    lengths = None if counts is None else torch.tensor(counts)
    split(Team(1, columns=False))
    alone = outcome(layer, given, lengths)
    for team in [*TEAMS.values(), Team(8, columns=False), Team(8, columns=True)]:
        split(team)
        found = outcome(layer, given, lengths)
        learned = {f"d {name}" for name, _ in layer.named_parameters()}
        assert_same_bits({n: v for n, v in found.items() if n not in learned}, {n: alone[n] for n in alone.keys() - learned})
        assert_close(found, {n: v.double() for n, v in alone.items()}, CLOSE[dtype])


def exactly(layer, given):
    """Inputs and their weights with few digits: what comes before the loop, torch's products, is exact in any order."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((parameter * 16).round() / 16)
    return Given({n: (v * 4).round() / 4 for n, v in given.inputs.items()}, given.state, given.context)


@DTYPES
@pytest.mark.parametrize("name", ["lstm", "gru", "indrnn", "mlstm"])
def test_a_sequence_alone_equals_itself_in_a_batch_to_the_bit(name, dtype):
    layer, _ = twins(name, 5, 24, dtype=dtype)
    given = exactly(layer, to(random_given(layer, 6, 40), dtype))
    output, final = given_call(layer, given)
    for rows in ([0], [7], [39], [3, 4], list(range(11, 30)), list(range(39, -1, -1))):
        found, after = given_call(layer, given.rows(rows))
        assert torch.equal(found, output[:, rows])
        for a, b in zip(floating(after), floating(final), strict=True):
            assert torch.equal(a, b[:, rows])


@pytest.mark.parametrize("name", ["lstm", "gru", "indrnn", "mlstm"])
def test_a_sequence_in_a_ragged_batch_equals_itself_alone_to_the_bit(name):
    layer, _ = twins(name, 5, 24)
    given, lengths = exactly(layer, random_given(layer, 6, 9)), torch.tensor([6, 1, 0, 3, 6, 5, 2, 4, 6])
    output, final = given_call(layer, given, lengths)
    for row, length in enumerate(lengths.tolist()):
        found, after = given_call(layer, given.rows([row]).steps(slice(0, length)))
        assert torch.equal(found, output[:length, [row]])
        assert not output[length:, row].any()
        for a, b in zip(floating(after), floating(final), strict=True):
            assert torch.equal(a, b[:, [row]])
