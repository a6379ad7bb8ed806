"""The layer's door: what it takes, what it gives, and what it says when it cannot."""

import copy
import pickle

import pytest
import torch

from carousel.errors import ConfigError, DTypeError, KernelUnavailable, ShapeError
from carousel.graph import Cell, Output, constant, tanh
from carousel.nn import Recurrent
from cases import each, every_case, every_cell, floating, random_given, random_layer, random_state, tensors


def layer(name="lstm", **options):
    return random_layer(name, 3, 4, dtype=torch.float32, **options)


def x(steps=5, batch=2, features=3, **options):
    return torch.randn(steps, batch, features, **options)


def raises(error, *parts):
    """The error, with a message that holds every one of `parts`."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{part})" for part in parts))


# --- what it takes ----------------------------------------------------------------------------------------------------


def test_wrong_last_axis_names_both_sizes_and_advises():
    with raises(ShapeError, "last axis of `x` is 7", "input_size=3", r"\(5, 2, 7\)", r"\(T, B, 3\)", "input_size=7"):
        layer()(x(features=7))
    with raises(ShapeError, r"\(B, T, 3\)"):
        layer(batch_first=True)(x(features=7))


@pytest.mark.parametrize("axes", [1, 2, 4])
def test_wrong_number_of_axes(axes):
    with raises(ShapeError, "3 axes", r"\(T, B, 3\)"):
        layer()(torch.randn(*[3] * axes))


def test_two_axes_get_a_hint_at_the_missing_batch():
    with raises(ShapeError, "unsqueeze"):
        layer()(torch.randn(5, 3))


def test_a_state_for_another_batch():
    with raises(ShapeError, "state h", r"\(1, 3, 4\)", r"\(1, 2, 4\)"):
        layer()(x(), layer().initial_state(3))


def test_a_batch_first_state_gets_a_hint():
    with raises(ShapeError, "batch_first does not touch the state"):
        layer(num_layers=2)(x(batch=5), (torch.zeros(5, 2, 4), torch.zeros(5, 2, 4)))


@pytest.mark.parametrize("given", [torch.zeros(1, 2, 4), (torch.zeros(1, 2, 4),), (torch.zeros(1, 2, 4),) * 3])
def test_a_wrong_number_of_states(given):
    with raises(ShapeError, "LSTM", "state needs 2 tensors", r"\(h, c\)"):
        layer()(x(), given)


def test_states_by_other_names():
    with raises(ShapeError, "other names", "h, c"):
        layer()(x(), {"h": torch.zeros(1, 2, 4), "d": torch.zeros(1, 2, 4)})


@pytest.mark.parametrize("given", ["hc", 3, (1.0, 2.0)])
def test_states_that_are_not_tensors(given):
    with raises(DTypeError, "must be tensors", r"\(h, c\)"):
        layer()(x(), given)


def test_states_of_another_dtype_are_named():
    good = torch.zeros(1, 2, 4)
    with raises(DTypeError, "state c", "float64", "float32"):
        layer()(x(), (good, good.double()))


def test_states_by_name_and_as_a_tuple_are_the_same():
    made = layer()
    given, state = x(), random_state(made, 2)
    named = {"c": state.c, "h": state.h}
    assert all(torch.equal(a, b) for a, b in zip(made(given, named)[1], made(given, tuple(state))[1], strict=True))


def test_one_state_may_be_given_as_a_tensor():
    made = layer("gru")
    state, given = random_state(made, 2), x()
    assert torch.equal(made(given, state.h)[0], made(given, state)[0])


@pytest.mark.parametrize(
    ("lengths", "error", "parts"),
    [
        (torch.tensor([6, 2]), ShapeError, [r"lengths\[0\] = 6", "T=5", "longer"]),
        (torch.tensor([2, -1]), ShapeError, [r"lengths\[1\] = -1", "negative"]),
        (torch.tensor([2.0, 3.0]), DTypeError, ["integers", "float32", r"lengths\.long\(\)"]),
        (torch.tensor([True, False]), DTypeError, ["integers", "bool", "mask"]),
        (torch.tensor([2, 2, 2]), ShapeError, ["one length for each sequence", "B=2", r"\(3,\)"]),
        (torch.tensor(2), ShapeError, ["one length for each sequence", "B=2"]),
        (torch.tensor([5, 5, 5, 5, 5]), ShapeError, ["one length for each sequence", "swapped", "batch_first"]),
    ],
)
def test_wrong_lengths(lengths, error, parts):
    with raises(error, *parts):
        layer()(x(), lengths=lengths)


def test_lengths_that_fit_the_other_axis_get_a_hint():
    with raises(ShapeError, "longer", "swapped", "batch_first"):
        layer()(x(steps=4, batch=9), lengths=torch.tensor([9, 3, 8, 1, 1, 1, 1, 1, 1]))


@pytest.mark.parametrize("lengths", [[2, 5], torch.tensor([2, 5], dtype=torch.int32), torch.tensor([2, 5], dtype=torch.uint8)])
def test_lengths_of_any_whole_type(lengths):
    made, given = layer(), x()
    assert torch.equal(made(given, lengths=lengths)[0], made(given, lengths=torch.tensor([2, 5]))[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_x_of_another_dtype(dtype):
    with raises(DTypeError, "another dtype", str(dtype), "torch.float32"):
        layer()(torch.ones(5, 2, 3, dtype=dtype))


def test_x_that_is_not_a_tensor():
    with raises(DTypeError, "x", "ndarray"):
        layer()(x().numpy())


# --- how it is built --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "4"])
def test_sizes_are_whole_and_positive(name, value):
    with raises(ConfigError, f"{name} must be a whole number"):
        Recurrent("gru", **{"input_size": 3, "hidden_size": 4, name: value})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_dropout_is_a_probability(value):
    with raises(ConfigError, "probability", "0 to 1"):
        Recurrent("gru", 3, 4, dropout=value)


def test_an_unknown_cell_gets_the_nearest_name():
    with raises(ConfigError, "unknown cell 'lsmt'", "Did you mean 'lstm'", "gru_reset_after"):
        Recurrent("lsmt", 3, 4)


def test_an_unknown_initialiser_or_parameter_gets_the_nearest_name():
    with raises(ConfigError, "unknown initialiser 'ortogonal'", "Did you mean 'orthogonal'"):
        Recurrent("gru", 3, 4, init={"U_r": "ortogonal"})
    with raises(ConfigError, "parameter of GRU 'U_x'", "Did you mean 'U_"):
        Recurrent("gru", 3, 4, init={"U_x": "orthogonal"})


def test_an_unknown_engine_gets_the_nearest_name():
    with raises(ConfigError, "unknown engine 'eagre'", "Did you mean 'eager'"):
        Recurrent("gru", 3, 4, engine="eagre")


def test_an_engine_that_cannot_run_here_says_why():
    with raises(KernelUnavailable, "'triton'", "GRU", "not part of this version", "engine='eager'"):
        Recurrent("gru", 3, 4, engine="triton")
    with raises(KernelUnavailable, "'cpu'", "ConvLSTM", "Convolution", "engine='eager'"):
        Recurrent("conv_lstm", (2, 3, 2), 2, engine="cpu")


def test_the_layer_says_which_engine_runs_and_why():
    assert str(Recurrent("gru", 3, 4, engine="eager").engine) == "eager (asked for)"
    automatic = Recurrent("gru", 3, 4)
    assert automatic.engine.name == "cpu"
    assert "fastest" in automatic.engine.reason
    assert "engine=cpu" in repr(automatic)


def test_a_parameter_named_like_a_method_of_modules_is_refused_or_works():
    class Named(Cell):
        def step(self, x, h):
            return tanh(self.affine("h", x, h)) * self.vector("half")

    with raises(ConfigError, "half"):
        Recurrent(Named, 3, 4)


def test_step_on_a_bidirectional_layer_says_why_not():
    with raises(ConfigError, "bidirectional", "cannot stream"):
        layer(bidirectional=True).step(x()[0])


def test_step_checks_its_input():
    with raises(ShapeError, "step", "2 axes"):
        layer().step(x())


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_the_state_lies_layer_by_layer_forwards_first():
    made = layer(num_layers=2, bidirectional=True)
    output, state = made(x())
    assert type(state).__name__ == "LSTMState"
    assert state._fields == ("h", "c")
    assert state.h.shape == state.c.shape == (4, 2, 4)
    assert torch.equal(state.h[2], output[-1, :, :4])  # the last layer's end, forwards
    assert torch.equal(state.h[3], output[0, :, 4:])  # and backwards


def test_batch_first_moves_the_axes_of_x_and_output_only():
    made = layer(num_layers=2, bidirectional=True)
    other = Recurrent("lstm", 3, 4, num_layers=2, bidirectional=True, batch_first=True)
    other.load_state_dict(made.state_dict())
    given, state, lengths = x(), random_state(made, 2), torch.tensor([3, 5])
    output, final = made(given, state, lengths)
    turned, same = other(given.transpose(0, 1), state, lengths)
    assert torch.equal(turned.transpose(0, 1), output)
    assert all(torch.equal(a, b) for a, b in zip(same, final, strict=True))


def test_no_state_means_zeros():
    made, given = layer(num_layers=2), x()
    assert torch.equal(made(given)[0], made(given, made.initial_state(2))[0])


@every_cell
def test_inputs_and_initial_states_are_not_changed(case):
    made = case.layer(num_layers=2, bidirectional=True)
    given, lengths = random_given(made, 5, 2), torch.tensor([3, 5])
    everything = [lengths, *given.inputs.values(), *tensors(given.state), *given.context.values()]
    before = [value.clone() for value in everything]
    output, final = given.call(made, lengths)
    with torch.no_grad():
        for part in (output, *tensors(final)):
            part.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, everything, strict=True))


@every_cell
def test_results_do_not_share_memory_with_the_initial_states(case):
    made = case.layer()
    with torch.no_grad():
        for steps in (0, 5):
            given = random_given(made, steps, 2)
            final = given.call(made, torch.zeros(2, dtype=torch.long))[1]
            for part, start in zip(tensors(final), tensors(given.state), strict=True):
                part.add_(1)
                assert not torch.equal(part, start)


def test_strided_and_sliced_inputs():
    made = layer()
    wide = torch.randn(2, 10, 6)
    strided = wide[:, ::2, ::2].transpose(0, 1)
    assert not strided.is_contiguous()
    assert torch.equal(made(strided)[0], made(strided.contiguous())[0])


def test_gradients_only_where_they_are_asked_for():
    made, given = layer(), x().requires_grad_()
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    made(given)[0].sum().backward()
    assert given.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in made.parameters())
    with torch.no_grad():
        assert not made(given)[0].requires_grad


@every_cell
def test_deepcopy_is_equal_and_apart(case):
    made = case.layer(bidirectional=True)
    given, twin = random_given(made, 5, 2), copy.deepcopy(made)
    before = given.call(made)[0]
    assert torch.equal(given.call(twin)[0], before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert torch.equal(given.call(made)[0], before)
    assert not torch.equal(given.call(twin)[0], before)


def test_deepcopy_of_a_cell_with_a_long_chain_of_operations():
    class Deep(Cell):
        def step(self, x, h):
            h = self.affine("h", x, h)
            for _ in range(400):
                h = tanh(h)
            return h

    made, given = layer(Deep), x()
    assert torch.equal(copy.deepcopy(made)(given)[0], made(given)[0])


def test_a_layer_can_be_sent_to_another_process():
    made, given = layer(), x()
    assert torch.equal(pickle.loads(pickle.dumps(made))(given)[0], made(given)[0])


@every_case
def test_state_dict_round_trip(case):
    made, other = (case.layer(num_layers=2, bidirectional=True) for _ in range(2))
    given = random_given(made, 5, 2)
    assert not torch.equal(given.call(other)[0], given.call(made)[0])
    other.load_state_dict(made.state_dict())
    assert torch.equal(given.call(other)[0], given.call(made)[0])
    assert {name.split(".")[0] for name in made.state_dict()} == {"layers", "layers_reverse"}


def test_dropout_acts_between_layers_and_in_training_only():
    made, given = layer(num_layers=2, dropout=0.5), x()
    made.eval()
    quiet = made(given)[0]
    assert torch.equal(made(given)[0], quiet)
    made.train()
    assert not torch.equal(made(given)[0], made(given)[0])
    alone = layer(num_layers=1, dropout=0.5).train()
    assert torch.equal(alone(given)[0], alone(given)[0])
    everything = layer(num_layers=2, dropout=1.0).train()
    assert torch.equal(everything(given)[0], everything(x())[0])  # the second layer sees zeros


def test_dropout_leaves_the_first_layers_state_alone():
    made, given = layer(num_layers=2, dropout=0.5).train(), x()
    assert torch.equal(made(given)[1].h[0], made(given)[1].h[0])


@every_cell
def test_second_derivatives(case):
    made = case.layer()
    given, asked = random_given(made, 5, 2).with_gradients()
    asked = [*asked, *made.parameters()]
    first = torch.autograd.grad(given.call(made)[0].pow(2).sum(), asked, create_graph=True)
    second = torch.autograd.grad(sum(part.pow(2).sum() for part in first), asked)
    assert all(torch.isfinite(part).all() for part in second)
    assert second[0].any()


@every_cell
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_from_the_start(case, dtype):
    layers = case.depth(2)
    made = Recurrent(case.cell, *case.sizes, num_layers=layers, bidirectional=True, dtype=dtype)
    given, asked = random_given(made, 5, 2, dtype=dtype).with_gradients()
    output, final = given.call(made, torch.tensor([5, 2]))
    assert output.dtype == dtype
    assert all(part.dtype == dtype for part in floating(final))
    output.sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in asked if leaf.grad is not None)


@every_case
def test_half_precision_is_near_single(case):
    made = case.layer(dtype=torch.float32, scale=0.3)
    given = random_given(made, 5, 2, dtype=torch.float32)

    def halved(value):
        return value.bfloat16() if value.is_floating_point() else value

    inputs, context = ({name: halved(value) for name, value in part.items()} for part in (given.inputs, given.context))
    low = type(given)(inputs, each(halved, given.state), context)
    half = copy.deepcopy(made).bfloat16()
    # bfloat16 keeps 8 bits: an error of 0.4 % a rounding, five steps of it.
    torch.testing.assert_close(low.call(half)[0].float(), given.call(made)[0], rtol=0.1, atol=0.15)


@every_case
def test_autocast_on_the_cpu(case):
    made = case.layer(num_layers=2, bidirectional=True, dtype=torch.float32, scale=0.3)
    given, lengths = random_given(made, 5, 2, dtype=torch.float32), torch.tensor([5, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, final = given.call(made, lengths)
    output.float().sum().backward()
    exact, _ = given.call(made, lengths)
    torch.testing.assert_close(output.float(), exact, rtol=0.1, atol=0.2)  # bfloat16's 8 bits, as above
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    assert all(torch.isfinite(part).all() for part in floating(final))


@every_cell
def test_double_precision_is_kept_throughout(case):
    made = case.layer(num_layers=2, bidirectional=True)
    output, final = random_given(made, 5, 2).call(made, torch.tensor([5, 2]))
    assert output.dtype == torch.float64
    assert all(part.dtype == torch.float64 for part in floating(final))


def test_a_cell_with_an_output_of_another_size_stacks():
    class Projected(Cell):
        def step(self, x, h):
            h = tanh(self.affine("h", x, h))
            return Output(self.dense("P", h, size="P")), h

        def sizes(self, input_size, hidden_size):
            return {"I": input_size, "H": hidden_size, "P": 2}

    made = random_layer(Projected, 3, 4, num_layers=3, bidirectional=True, dtype=torch.float32)
    output, state = made(x())
    assert made.output_size == 4
    assert output.shape == (5, 2, 4)
    assert state.h.shape == (6, 2, 4)
    assert made.layers[1].W_h.shape == (4, 4)


def test_parameters_are_named_as_in_the_equations_and_counted():
    made = Recurrent("lstm", 3, 4)
    assert sorted(name for name, _ in made.layers[0].named_parameters()) == sorted(f"{k}_{g}" for k in "WUb" for g in "ifgo")
    assert sum(p.numel() for p in made.parameters()) == 4 * (4 * 3 + 4 * 4 + 4)


def test_init_by_name_number_and_initialiser():
    made = Recurrent("lstm", 3, 4, init={"b_f": 3, "U_i": "zeros", "W_o": constant(0.25)}, num_layers=2)
    for parameters in made.layers:
        assert (parameters.b_f == 3).all()
        assert (parameters.U_i == 0).all()
        assert (parameters.W_o == 0.25).all()
        assert (parameters.b_i == 0).all()


@every_cell
def test_the_same_seed_gives_the_same_weights(case):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(Recurrent(case.cell, *case.sizes, bidirectional=True).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_cell_that_learns_nothing():
    class Average(Cell):
        """A running mean."""

        def step(self, x, h):
            return 0.9 * h + 0.1 * x

        def sizes(self, input_size, hidden_size):
            return {"I": input_size, "H": hidden_size}

        shapes = {"x": ("H",)}  # noqa: RUF012

    made, given = Recurrent(Average, 4, 4), x(features=4)
    assert made(given)[0].shape == (5, 2, 4)


def test_reset_parameters_starts_anew():
    made = Recurrent("lstm", 3, 4, bidirectional=True)
    torch.manual_seed(3)
    made.reset_parameters()
    first = {name: p.clone() for name, p in made.named_parameters()}
    torch.manual_seed(3)
    made.reset_parameters()
    assert all(torch.equal(first[name], p) for name, p in made.named_parameters())
    assert (made.layers_reverse[0].b_f == 1).all()


def test_an_empty_batch_takes_an_empty_list_of_lengths():
    layer = Recurrent("lstm", 2, 3)
    output, state = layer(torch.randn(4, 0, 2), lengths=[])
    assert output.shape == (4, 0, 3)
    assert state.h.shape == (1, 0, 3)


def test_lengths_that_are_no_numbers_are_refused():
    with pytest.raises(DTypeError, match=r"lengths must be integers\.\n  got:      str"):
        Recurrent("lstm", 2, 3)(torch.randn(4, 1, 2), lengths="4")
