"""Streams: the same numbers as the layer's own steps and as the whole sequence, whoever joins, leaves or waits.

Random weights, states that are not zero, at least four steps.
"""

import copy

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from carousel import nn
from carousel.errors import ConfigError, DTypeError, ShapeError
from carousel.nn import VariationalDropout, Zoneout
from cases import each, every_case, floating, random_given, random_layer, random_state, small, tensors

# Relative to 1 + the largest number, against the layer's own steps; 2e-15 and 1e-6 were measured. The layer multiplies its
# inputs by torch's products, which sum in another order.
CLOSE = {torch.float64: 1e-13, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=["double", "single"])
STEPS = 4


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_close(found, expected):
    for mine, other in zip(tensors(found), tensors(expected), strict=True):
        assert mine.shape == other.shape
        if not mine.numel():
            continue
        if not mine.is_floating_point():
            assert torch.equal(mine, other)
            continue
        close = CLOSE[mine.dtype] * (1 + other.abs().max().item())
        assert (mine - other).abs().max().item() <= close


def inputs_of(given, t):
    values = [value[t] for value in given.inputs.values()]
    return values[0] if len(values) == 1 else tuple(values)


def in_type(value, dtype):
    return value.to(dtype) if value.is_floating_point() else value


@DTYPES
@every_case
def test_each_step_is_the_layers_own(case, dtype):
    layer = case.layer(num_layers=2, dtype=dtype)
    given = random_given(layer, STEPS, 3, dtype=dtype)
    state = each(lambda part: in_type(part, dtype), given.state)
    stream = layer.stream(state=state, context=given.context or None)
    assert stream.engine.name == ("eager" if layer.engine.name == "eager" else "cpu"), stream.engine
    for t in range(STEPS):
        expected, state = given.step(layer, t, state)
        output = stream(inputs_of(given, t))
        assert not output.requires_grad
        assert_close(output, expected.detach())
        assert_close(stream.state, each(torch.detach, state))
    assert type(stream.state) is type(state)


TORCH = {
    "lstm": (nn.LSTM, {}), "gru": (nn.GRU, {}), "rnn": (nn.RNN, {}), "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "projected": (nn.LSTM, {"proj_size": 3}), "deep": (nn.GRU, {"num_layers": 3}), "no bias": (nn.LSTM, {"bias": False}),
    "batch first": (nn.LSTM, {"batch_first": True, "num_layers": 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TORCH)
def test_torch_layers_stream(kind):
    make, options = TORCH[kind]
    layer = make(5, 7, **options).double()
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    first = layer(x[:2].transpose(0, 1) if layer.batch_first else x[:2])[1]
    stream = layer.stream(state=each(torch.detach, first))
    outputs = torch.stack([stream(x_t) for x_t in x[2:]])
    whole, after = layer(x.transpose(0, 1) if layer.batch_first else x)
    assert stream.engine.name == layer.engine.name == "cpu"
    assert_close(outputs, (whole.transpose(0, 1) if layer.batch_first else whole).detach()[2:])
    assert_close(stream.state, each(torch.detach, after))
    assert type(stream.state) is type(after)


@pytest.mark.parametrize("skip", ["residual", "highway"])
@pytest.mark.parametrize("hidden", [6, (6, 6, 6)])
def test_what_leads_around_layers_leads_around_them_here(skip, hidden):
    layer = random_layer("gru", 3, hidden, num_layers=3, skip=skip, learn_state=True)
    x = torch.randn(STEPS, 2, 3, dtype=torch.float64)
    stream = layer.stream(2)
    assert_close(torch.stack([stream(x_t) for x_t in x]), layer(x)[0].detach())


@pytest.mark.parametrize("sizes", [(5, 9), (9, 5, 3)])
def test_layers_of_different_sizes(sizes):
    layer = random_layer("lstm", 4, sizes, num_layers=len(sizes))
    x = torch.randn(STEPS, 2, 4, dtype=torch.float64)
    stream, (whole, after) = layer.stream(2), layer(x)
    assert_close(torch.stack([stream(x_t) for x_t in x]), whole.detach())
    assert_close(stream.state, tuple(each(torch.detach, part) for part in after))


@pytest.mark.parametrize(("batch", "size"), [(1, 40), (1, 300), (5, 300), (40, 70), (130, 17)])
def test_several_threads_give_the_same_bits(batch, size):
    layer = random_layer("lstm", size, size, dtype=torch.float32, scale=size**-0.5)
    x = torch.randn(STEPS, batch, size)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        stream = layer.stream(batch)
        found.append(torch.stack([stream(x_t) for x_t in x]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert_close(found[0], layer(x)[0].detach())


def test_a_stream_follows_a_change_of_threads():
    layer = random_layer("gru", 200, 200, dtype=torch.float32, scale=0.07)
    x = torch.randn(STEPS, 1, 200)
    stream, outputs = layer.stream(), []
    for x_t, threads in zip(x, (1, 2, 1, 2), strict=True):
        torch.set_num_threads(threads)
        outputs.append(stream(x_t))
    assert_close(torch.stack(outputs), layer(x)[0].detach())


# --- slots ------------------------------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.one_of(
        st.just(("join", 0)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("reset"), st.integers(0, 9)),
        st.tuples(st.just("all"), st.integers(0, 2)),
        st.tuples(st.just("some"), st.permutations(range(6)).flatmap(lambda p: st.integers(1, 6).map(lambda n: p[:n]))),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", ["lstm", "clockwork_rnn", "gru_d", "attention_gru", "conv_lstm"])
@settings(max_examples=15, deadline=None)
@given(actions=ACTIONS, begin=st.integers(0, 2), seed=st.integers(0, 99))
def test_slots_that_join_and_leave_are_each_alone(name, actions, begin, seed):
    torch.manual_seed(seed)
    layer = small(name).layer()
    one = random_given(layer, 1, max(begin, 1))
    context = {key: value[:begin] for key, value in one.context.items()} or None
    stream = layer.stream(begin, context=context)
    alone = {s: (layer.initial_state(1), {k: v[s : s + 1] for k, v in one.context.items()}) for s in range(begin)}

    def advance(slots, given):
        outputs = []
        for row, slot in enumerate(slots):
            state, context = alone[slot]
            x = {key: value[0, row : row + 1] for key, value in given.inputs.items()}
            output, state = layer.step(x, state, context=context or None)
            alone[slot] = (state, context)
            outputs.append(output.detach())
        return outputs

    for what, number in actions:
        slots = sorted(alone)
        if what == "join":
            new = random_given(layer, 1, 1)
            state = random_state(layer, 1)
            alone[stream.join(state, context=new.context or None)] = (state, new.context)
        elif what == "leave" and slots:
            slot = slots[number % len(slots)]
            assert_close(stream.leave(slot), each(torch.detach, alone.pop(slot)[0]))
        elif what == "reset" and slots:
            slot = slots[number % len(slots)]
            stream.reset([slot])
            alone[slot] = (layer.initial_state(1), alone[slot][1])
        elif what == "all" and slots:
            x = random_given(layer, 1, len(slots))
            assert_close(stream(inputs_of(x, 0)), torch.cat(advance(slots, x)))
        elif what == "some" and slots:
            chosen = [slots[i] for i in number if i < len(slots)]
            x = random_given(layer, 1, len(chosen))
            values = inputs_of(x, 0)
            rows = list(zip(*values, strict=True)) if isinstance(values, tuple) else list(values)
            by_slot = len(chosen) % 2 and chosen
            found = stream(dict(zip(chosen, rows, strict=True))) if by_slot else stream(values, chosen)
            expected = advance(chosen, x)
            if by_slot:
                assert list(found) == chosen
                found = torch.stack(list(found.values()))
            assert_close(found, torch.cat(expected) if expected else found[:0])
        assert stream.slots == tuple(sorted(alone))
    for row, slot in enumerate(sorted(alone)):
        mine = each(lambda part, row=row: part[:, row : row + 1], stream.state)
        assert_close(mine, each(torch.detach, alone[slot][0]))


def test_waiting_slots_keep_their_states_to_the_bit():
    layer = random_layer("lstm", 3, 5, dtype=torch.float32)
    stream = layer.stream(4)
    stream(torch.randn(4, 3))
    before = stream.state
    stream.step(torch.randn(2, 3), [3, 1])
    for old, new in zip(before, stream.state, strict=True):
        assert torch.equal(old[:, [0, 2]], new[:, [0, 2]])
        assert not torch.equal(old[:, 1], new[:, 1])
        assert not torch.equal(old[:, 3], new[:, 3])


def test_noise_belongs_to_the_slot_and_the_step():
    layer = random_layer("lstm", 3, 32, transforms=(Zoneout(0.3), VariationalDropout(0.4)))
    x = torch.randn(STEPS, 3, 3, dtype=torch.float64)
    whole = layer(x, seed=7)[0].detach()
    stream = layer.stream(3, seed=7)
    assert_close(torch.stack([stream(x_t) for x_t in x]), whole)
    stream = layer.stream(3, seed=7)
    outputs = [stream(x[0])]
    stream.leave(1)
    outputs += [stream(x_t[[0, 2]]) for x_t in x[1:-1]]
    outputs.append(stream(x[-1, [2]], [2]))
    assert_close(torch.stack(outputs[1:-1]), whole[1:-1, [0, 2]])
    assert_close(outputs[-1], whole[-1, [2]])


# --- what changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: random_layer("lstm", 3, 5), lambda: nn.GRU(3, 5).double()], ids=["own", "torch"])
def test_an_optimisers_step_is_seen(make):
    layer = make()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    x = torch.randn(STEPS, 2, 3, dtype=torch.float64)
    stream = layer.stream(2)
    stream(x[0])
    state = stream.state
    layer(x)[0].square().sum().backward()
    optimiser.step()
    expected = layer(x[1:2], state)[0][0].detach()
    assert_close(stream(x[1]), expected)


def test_a_change_that_torch_does_not_count_needs_refresh():
    layer = random_layer("lstm", 3, 5)
    x = torch.randn(2, 3, dtype=torch.float64)
    stream, twin = layer.stream(2), copy.deepcopy(layer).stream(2)
    for parameter in layer.parameters():
        parameter.data = parameter.data * 2
    assert torch.equal(stream(x), twin(x))
    stream.reset()
    stream.refresh()
    assert_close(stream(x), layer.step(x)[0].detach())


def test_a_stream_follows_evaluation_and_training():
    layer = random_layer("gru", 3, 16, num_layers=2, transforms=(Zoneout(0.5),), dropout=0.5)
    x = torch.randn(2, 3, dtype=torch.float64)
    stream = layer.stream(2)
    assert (stream.engine.name, "dropout" in stream.engine.reason) == ("eager", True)
    stream(x)
    state = stream.state
    layer.eval()
    assert_close(stream(x), layer.step(x, state)[0].detach())
    assert stream.engine.name == "cpu"


def test_a_layer_of_another_type_takes_its_states_along():
    layer = random_layer("lstm", 3, 5)
    stream = layer.stream()
    x = torch.randn(1, 3, dtype=torch.float64)
    stream(x)
    state = each(torch.Tensor.float, stream.state)
    layer.float()
    assert_close(stream(x.float()), layer.step(x.float(), state)[0].detach())


def test_two_streams_of_a_layer_do_not_meet():
    layer = random_layer("lstm", 3, 5)
    x, y = torch.randn(2, STEPS, 1, 3, dtype=torch.float64)
    one, two = layer.stream(), layer.stream()
    pairs = [(one(a), two(b)) for a, b in zip(x, y, strict=True)]
    assert_close(torch.stack([a for a, _ in pairs]), layer(x)[0].detach())
    assert_close(torch.stack([b for _, b in pairs]), layer(y)[0].detach())


def test_outputs_and_states_are_the_callers():
    layer = random_layer("lstm", 3, 5)
    x = torch.randn(STEPS, 1, 3, dtype=torch.float64)
    stream, twin = layer.stream(), layer.stream()
    for x_t in x:
        output, state = stream(x_t), stream.state
        assert_close(output, twin(x_t))
        output.zero_()
        each(torch.Tensor.zero_, state)
        twin(x_t.new_zeros(0, 3), [])


def test_inputs_of_any_memory():
    layer = random_layer("lstm", 3, 5)
    x = torch.randn(3, 2, dtype=torch.float64).T.requires_grad_()
    assert torch.equal(layer.stream(2)(x), layer.stream(2)(x.detach().contiguous()))
    with torch.inference_mode():
        assert_close(layer.stream(2)(x), layer.step(x)[0])


def test_no_slots():
    layer = random_layer("lstm", 3, 5)
    stream = layer.stream(0)
    assert stream(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 5)
    assert stream({}) == {}
    assert [tuple(part.shape) for part in stream.state] == [(1, 0, 5)] * 2
    assert stream.join() == 0


def test_weights_in_bfloat16_cost_what_rounding_them_costs():
    layer = random_layer("lstm", 33, 64, dtype=torch.float32, scale=0.125)
    rounded = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.bfloat16())
    layer.inference_weights = "bfloat16"
    x = torch.randn(STEPS, 2, 33)
    stream, exact = layer.stream(2), rounded.stream(2)
    for x_t in x:
        assert torch.equal(stream(x_t), exact(x_t))


# --- what is wrong ----------------------------------------------------------------------------------------------------

WRONG = {
    "rows": (lambda s: s(torch.zeros(3, 3)), ShapeError, "2 slots"),
    "features": (lambda s: s(torch.zeros(2, 4)), ShapeError, "input_size=3"),
    "type": (lambda s: s(torch.zeros(2, 3).double()), DTypeError, "float64"),
    "slot": (lambda s: s(torch.zeros(1, 3), [5]), ConfigError, "no such slot"),
    "twice": (lambda s: s(torch.zeros(2, 3), [1, 1]), ConfigError, "twice"),
    "gone": (lambda s: (s.leave(0), s.leave(0)), ConfigError, "no such slot"),
    "values": (lambda s: s({0: 3.0}), DTypeError, "float"),
    "state": (lambda s: s.join((torch.zeros(1, 2, 5),) * 2), ShapeError, "another shape"),
    "closed": (lambda s: (s.close(), s(torch.zeros(2, 3))), ConfigError, "closed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_run_is_said(case):
    run, kind, words = WRONG[case]
    with random_layer("lstm", 3, 5, dtype=torch.float32).stream(2) as stream, pytest.raises(kind, match=words):
        run(stream)


BACKWARDS = {
    "both ways": lambda: random_layer("lstm", bidirectional=True),
    "reverse": lambda: random_layer("lstm", reverse=True),
    "torch's": lambda: nn.LSTM(3, 4, bidirectional=True),
}


@pytest.mark.parametrize("make", BACKWARDS.values(), ids=list(BACKWARDS))
def test_a_layer_that_runs_backwards_does_not_stream(make):
    with pytest.raises(ConfigError, match="cannot stream"):
        make().stream()


def test_states_are_not_zero_here():
    assert all(part.abs().min() > 0 for part in floating(random_state(random_layer("lstm"), 2)))


def test_a_stream_restarts_from_any_states():
    layer = nn.Recurrent("lstm", input_size=3, hidden_size=4)
    x = torch.randn(3, 5, 3)
    stream = layer.stream(2)
    stream.step(torch.randn(2, 3))
    _, state = layer(x[:2])
    for batch in (5, 1, 3):  # more than there is room for, fewer, and others
        mine = type(state)(*(part[:, :batch] for part in state))
        stream.restart(batch, mine)
        assert stream.slots == tuple(range(batch))
        wanted, after = layer(x[2:, :batch], mine)
        assert torch.allclose(stream.step(x[2, :batch]), wanted[0], atol=1e-6)
        assert torch.allclose(stream.state.h, after.h, atol=1e-6)
    stream.restart(2)
    assert torch.allclose(stream.step(x[0, :2]), layer(x[:1, :2])[0][0], atol=1e-6)
