"""What `Recurrent` offers beyond a plain stack: against compositions by hand, and what it says about mistakes."""

import copy

import pytest
import torch

from carousel.cells import resolve_cell
from carousel.errors import ConfigError, DTypeError, ShapeError
from carousel.graph import Cell, chrono, minus, tanh
from carousel.nn import ActivationPenalty, Recurrent, TemporalActivationPenalty, WeightPenalty, Zoneout
from cases import each, random_given, random_layer, random_state, tensors

STEPS, BATCH = 6, 4
LENGTHS = torch.tensor([4, 0, 6, 1])
CLOSE = {"rtol": 1e-12, "atol": 1e-13}  # float64; a product over more rows may sum in another order


def close(got, expected):
    for one, other in zip(tensors(got), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def random_x(features=3, steps=STEPS, batch=BATCH):
    return torch.randn(steps, batch, features, dtype=torch.float64)


def raises(error, *parts):
    """The error, with a message that holds every one of `parts`."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{part})" for part in parts))


def single(name, layer, number=0, direction=0):
    """One layer and direction of a stack as a layer of its own."""
    source = (layer.layers_reverse if direction else layer.layers)[number]
    alone = random_layer(name, source.sizes["I"], source.sizes["H"], reverse=bool(direction))
    alone.layers[0].load_state_dict(source.state_dict())
    return alone


def part(state, at):
    """The state of one layer and direction, as a layer of its own has it."""
    if not hasattr(state, "_fields"):
        return each(lambda value: value[None], state[at])
    return each(lambda value: value[at : at + 1], state)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_layers_of_different_sizes_are_layers_on_layers(name):
    layer = random_layer(name, 3, (5, 2, 4), num_layers=3)
    x, state = random_x(), random_state(layer, BATCH)
    output, final = layer(x, state, LENGTHS)
    assert [value.shape for value in (stage[0] for stage in final)] == [(BATCH, 5), (BATCH, 2), (BATCH, 4)]
    assert all(type(stage).__name__ == f"{type(layer.cell).__name__}State" for stage in final)
    below = x
    for number in range(3):
        below, after = single(name, layer, number)(below, part(state, number), LENGTHS)
        close(part(final, number), after)
    close(output, below)


def test_states_of_different_sizes_go_round_and_stream():
    layer = random_layer("lstm", 3, [5, 2], num_layers=2)
    x = random_x()
    whole, final = layer(x)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state)
    close(torch.cat([first, second]), whole)
    close(state, final)
    state = layer.initial_state(BATCH)
    for x_t in x:
        _, state = layer.step(x_t, tuple(map(tuple, state)))
    close(state, final)
    mapped = layer(x, [stage._asdict() for stage in layer.initial_state(BATCH)])[0]
    close(mapped, whole)


def test_one_size_in_a_list_is_one_size():
    layer = random_layer("gru", 3, [4, 4], num_layers=2)
    assert layer.initial_state(2).h.shape == (2, 2, 4)


def test_sizes_must_be_one_or_one_for_each_layer():
    with raises(ConfigError, "one hidden_size, or one for each layer", "3 sizes for num_layers=2"):
        Recurrent("gru", 3, (4, 4, 4), num_layers=2)
    with raises(ConfigError, "hidden_size must be a whole number", "got:", "0"):
        Recurrent("gru", 3, (4, 0), num_layers=2)


def test_states_of_different_sizes_that_do_not_fit_say_what_is_wanted():
    layer = random_layer("gru", 3, (5, 2), num_layers=2)
    with raises(ShapeError, "state h", r"\(4, 5\)", r"\(4, 2\)"):
        layer(random_x(), (torch.zeros(4, 5).double(), torch.zeros(4, 5).double()))
    with raises(ShapeError, "other parts", "2 tuples", "one for each layer and direction"):
        layer(random_x(), (torch.zeros(4, 5).double(),))
    with raises(DTypeError, "must be a tuple", "Tensor"):
        layer(random_x(), torch.zeros(2, 4, 5).double())


# --- merges, directions, skips ----------------------------------------------------------------------------------------


def merged(kind, ahead, back):
    return {"concat": torch.cat([ahead, back], -1), "sum": ahead + back, "mean": (ahead + back) / 2}[kind]


@pytest.mark.parametrize("merge", ["concat", "sum", "mean"])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_both_directions_are_two_layers_merged(merge, independent, lengths):
    layer = random_layer("lstm", 3, 4, num_layers=3, bidirectional=True, merge=merge, independent=independent)
    x, state = random_x(), random_state(layer, BATCH)
    output, final = layer(x, state, lengths)
    streams = [x, x]
    for number in range(3):
        for direction in (0, 1):
            alone = single("lstm", layer, number, direction)
            streams[direction], after = alone(streams[direction], part(state, 2 * number + direction), lengths)
            close(part(final, 2 * number + direction), after)
        if not independent or number == 2:
            streams = [merged(merge, *streams)] * 2
    close(output, streams[0])
    assert layer.output_size == output.shape[-1]
    assert layer.direction_size == 4


def test_sum_and_mean_keep_the_size():
    assert [Recurrent("gru", 3, 4, bidirectional=True, merge=m).output_size for m in ("concat", "sum", "mean")] == [8, 4, 4]
    assert Recurrent("gru", 3, 4, num_layers=2, bidirectional=True, merge="sum").layers[1].sizes["I"] == 4


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_reverse_is_the_flipped_sequence_run_forwards(lengths):
    layer = random_layer("lstm", 3, 4, num_layers=2, reverse=True)
    ahead = random_layer("lstm", 3, 4, num_layers=2)
    ahead.load_state_dict(layer.state_dict())
    counts = LENGTHS.tolist() if lengths is not None else [STEPS] * BATCH

    def flip(values):
        flipped = values.clone()
        for b, n in enumerate(counts):
            flipped[:n, b] = values[:n, b].flip(0)
        return flipped

    x, state = random_x(), random_state(layer, BATCH)
    output, final = layer(x, state, lengths)
    expected, expected_final = ahead(flip(x), state, lengths)
    close(output, flip(expected))
    close(final, expected_final)


def test_a_layer_that_runs_backwards_has_no_step():
    for options in ({"reverse": True}, {"bidirectional": True}):
        with raises(ConfigError, "Recurrent.step", "cannot stream", "bidirectional=False, reverse=False"):
            random_layer("gru", 3, 4, **options).step(random_x()[0])
    with raises(ConfigError, "reverse and bidirectional exclude each other"):
        Recurrent("gru", 3, 4, reverse=True, bidirectional=True)


@pytest.mark.parametrize("skip", ["residual", "highway"])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"bidirectional": True, "independent": True, "merge": "sum"}], ids=str
)
def test_skips_are_what_leads_around_each_layer_after_the_first(skip, options):
    layer = random_layer("gru", 3, 4, num_layers=3, skip=skip, **options)
    x, directions = random_x(), 2 if options else 1
    streams, before, gates = [x] * directions, None, iter(getattr(layer, "highways", ()))
    for number in range(3):
        made = [single("gru", layer, number, d)(streams[d], None, LENGTHS)[0] for d in range(directions)]
        if directions == 2 and "independent" not in options:
            made = [torch.cat(made, -1)]
        if number > 0:
            for i, (old, new) in enumerate(zip(before, made, strict=True)):
                if skip == "residual":
                    made[i] = old + new
                else:
                    gate = torch.sigmoid(next(gates).gate(old))
                    made[i] = gate * new + (1 - gate) * old
        before = made
        streams = made if len(made) == directions else made * directions
    expected = before[0] + before[1] if len(before) == 2 else before[0]
    real = torch.arange(STEPS)[:, None] < LENGTHS
    close(layer(x, None, LENGTHS)[0], expected * real[..., None])  # padding stays zero, whatever a gate makes of zeros
    assert next(gates, None) is None


def test_skips_need_layers_of_one_size():
    with raises(ConfigError, "skip='residual' needs layers of one size", r"\[5, 4\]"):
        Recurrent("gru", 3, (5, 4), num_layers=2, skip="residual")


@pytest.mark.parametrize(("name", "wrong", "near"), [("merge", "summ", "sum"), ("skip", "residuals", "residual")])
def test_unknown_choices_get_the_nearest(name, wrong, near):
    with raises(ConfigError, name, f"'{wrong}'", f"Did you mean '{near}'"):
        Recurrent("gru", 3, 4, **{name: wrong})


# --- learned starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [4, (4, 2)], ids=["one size", "two sizes"])
def test_learned_starts_are_where_sequences_start(sizes):
    layer = random_layer("lstm", 3, sizes, num_layers=2, learn_state=True)
    start = layer.initial_state(BATCH)
    parts = [part(start, number) for number in range(2)]
    for number, stage in enumerate(parts):
        for name, value in stage._asdict().items():
            learned = layer.layers[number].get_parameter(f"initial_{name}")
            assert torch.equal(value[0], learned.expand(BATCH, -1))
    x = random_x()
    close(layer(x, None, LENGTHS)[0], layer(x, start, LENGTHS)[0])
    _, final = layer(x, None, LENGTHS)
    for number in range(2):  # row 1 has no step
        close(each(lambda v: v[:, 1], part(final, number)), each(lambda v: v[:, 1], parts[number]))
    layer(x, None, LENGTHS)[0].square().sum().backward()
    for stage in layer.layers:
        assert stage.initial_h.grad.abs().min() > 0
        assert stage.initial_c.grad.abs().min() > 0


def test_learned_starts_begin_at_zero_and_a_given_state_wins():
    layer = Recurrent("gru", 3, 4, learn_state=True, dtype=torch.float64)
    assert torch.equal(layer.initial_state(2).h, torch.zeros(1, 2, 4, dtype=torch.float64))
    layer(random_x(), torch.ones(1, BATCH, 4, dtype=torch.float64))[0].sum().backward()
    assert layer.layers[0].initial_h.grad is None
    with torch.no_grad():
        layer.layers[0].initial_h.fill_(3.0)
    layer.reset_parameters()
    assert not layer.layers[0].initial_h.any()


# --- inputs, no inputs, context ---------------------------------------------------------------------------------------


def gru_d(**options):
    layer = random_layer("gru_d", 3, 4, **options)
    return layer, random_given(layer, STEPS, BATCH)


def test_several_inputs_come_as_a_tuple_or_by_name():
    layer, given = gru_d()
    expected = layer(given.inputs, given.state)[0]
    assert torch.equal(layer(tuple(given.inputs.values()), given.state)[0], expected)
    assert torch.equal(layer(dict(reversed(given.inputs.items())), given.state)[0], expected)
    turned = Recurrent("gru_d", 3, 4, batch_first=True, dtype=torch.float64)
    turned.load_state_dict(layer.state_dict())
    flipped = {name: value.transpose(0, 1) for name, value in given.inputs.items()}
    assert torch.equal(turned(flipped, given.state)[0].transpose(0, 1), expected)


def test_wrong_inputs_are_named():
    layer, given = gru_d()
    x, m, d = given.inputs.values()
    with raises(ShapeError, "x needs 3 tensors", "got:.*2", r"\(x, m, d\)"):
        layer((x, m))
    with raises(ShapeError, "other names", "x, m, gap", "x, m, d"):
        layer({"x": x, "m": m, "gap": d})
    with raises(ShapeError, "disagree in time or batch", "'d': .6, 3."):
        layer((x, m, d[:, :3]))
    with raises(ShapeError, "last axis of `m` is 2"):
        layer((x, m[..., :2], d))
    with raises(DTypeError, "d is of another dtype", "float32", "float64"):
        layer((x, m, d.float()))
    with raises(DTypeError, "must be tensors", "NoneType"):
        layer((x, m, None))
    with raises(ConfigError, "GRUD has 3 inputs", "num_layers=1"):
        Recurrent("gru_d", 3, 4, num_layers=2)


class Generator(Cell):
    """One to many: nothing comes in."""

    inputs = ()
    context = ("speaker",)
    shapes = {"speaker": ("K",)}  # noqa: RUF012

    def step(self, h, speaker):
        return tanh(self.affine("h", h, speaker))


class Clock(Cell):
    """Neither input nor context."""

    inputs = ()

    def step(self, h):
        return tanh(self.affine("h", h))


def test_a_cell_without_inputs_runs_for_the_steps_it_is_given():
    layer = random_layer(Clock, 0, 4)
    h = torch.randn(1, 3, 4, dtype=torch.float64)
    output, final = layer(state=(h,), steps=5)
    expected, p = [h[0]], layer.layers[0]
    for _ in range(5):
        expected.append(torch.tanh(expected[-1] @ p.W_h.T + p.b_h))
    close(output, torch.stack(expected[1:]))
    close(final.h[0], expected[-1])
    assert layer(steps=2)[0].shape == (2, 1, 4)
    assert layer(steps=2, batch=3)[0].shape == (2, 3, 4)
    assert layer(steps=0, batch=3)[0].shape == (0, 3, 4)
    state, steps = (h,), []
    for _ in range(5):
        y, state = layer.step(None, state)
        steps.append(y)
    close(torch.stack(steps), output)
    ragged, after = layer(state=(h,), steps=5, lengths=torch.tensor([5, 0, 2]))
    close(ragged[:2, 2], output[:2, 2])
    assert torch.equal(after.h[0, 1], h[0, 1])


def test_a_parameter_with_an_axis_that_only_a_context_has_cannot_be_made():
    with raises(ConfigError, "axis 'K' whose size is not known", r"got:.*\(H, K\)", "sizes"):
        Recurrent(Generator, 0, 4)


class Speaking(Generator):
    """As above, with a size for what the context has."""

    def sizes(self, input_size, hidden_size):
        return {"I": input_size, "H": hidden_size, "K": 2}


def test_a_context_is_seen_at_every_step():
    layer = random_layer(Speaking, 0, 4)
    speaker = torch.randn(3, 2, dtype=torch.float64)
    output, _ = layer(context=speaker, steps=4)
    p, h = layer.layers[0], torch.zeros(3, 4, dtype=torch.float64)
    for y in output:
        h = torch.tanh(h @ p.W_h.T + speaker @ p.U_h.T + p.b_h)
        close(y, h)
    assert torch.equal(layer(context={"speaker": speaker}, steps=4)[0], output)
    assert torch.equal(layer(context=(speaker,), steps=4)[0], output)


@pytest.mark.parametrize("value", [-1, 2.5, True, "3"])
def test_steps_are_a_whole_number(value):
    with raises(ConfigError, "steps must be a whole number", "got:"):
        random_layer(Clock, 0, 4)(steps=value)


def test_what_is_missing_or_too_much_is_said():
    clock, gru = random_layer(Clock, 0, 4), random_layer("gru", 3, 4)
    with raises(ConfigError, "no inputs", "steps=T"):
        clock()
    with raises(ShapeError, "x needs 0 tensors", "got:.*1", "expected: none"):
        clock(random_x(), steps=3)
    with raises(ConfigError, "steps= is for cells without inputs"):
        gru(random_x(), steps=6)
    with raises(ShapeError, "x needs 1 tensors", "got:.*0"):
        gru()
    with raises(ShapeError, "context needs 0 tensors"):
        gru(random_x(), context=torch.zeros(4, 2).double())


def attention():
    layer = random_layer(resolve_cell("attention_gru", {"memory_size": 5, "attention_size": 2}), 3, 4)
    return layer, random_given(layer, STEPS, BATCH)


def test_wrong_contexts_are_named():
    layer, given = attention()
    memory, mask = given.context.values()
    x = given.inputs
    with raises(ShapeError, "context needs 2 tensors", r"\(memory, mask\)"):
        layer(x)
    with raises(ShapeError, "context has other names", "memory, padding", "memory, mask"):
        layer(x, context={"memory": memory, "padding": mask})
    with raises(ShapeError, "context memory has another shape", r"\(4, 5, 4\)", r"\(B=4, S, 5\)"):
        layer(x, context=(memory[..., :4], mask))
    with raises(ShapeError, "context memory", r"\(2, 5, 5\)", r"\(B=4, S, 5\)"):
        layer(x, context=(memory[:2], mask[:2]))
    with raises(ShapeError, "context mask", r"\(4, 3\)", r"\(B=4, 5\)"):
        layer(x, context=(memory, mask[:, :3]))
    with raises(DTypeError, "context memory is of another dtype", "float32", "float64"):
        layer(x, context=(memory.float(), mask))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
def test_a_mask_of_a_memory_may_be_of_any_type(dtype):
    layer, given = attention()
    memory, mask = given.context.values()
    assert not mask.all()
    expected = layer(given.inputs, given.state, context=(memory, mask))[0]
    assert torch.equal(layer(given.inputs, given.state, context=(memory, mask.to(dtype)))[0], expected)


# --- penalties --------------------------------------------------------------------------------------------------------


def test_weight_penalties_add_up_over_layers_and_directions():
    layer = random_layer("gru", 3, 4, num_layers=2, bidirectional=True, penalties=[WeightPenalty("U_*", l1=0.1, l2=0.01)])
    chosen = [p for stack in (layer.layers, layer.layers_reverse) for l in stack for p in (l.U_r, l.U_z, l.U_n)]  # noqa: E741
    expected = sum(0.1 * p.abs().sum() + 0.01 * (p**2).sum() for p in chosen)
    torch.testing.assert_close(layer.penalty(), expected, **CLOSE)
    layer.penalty().backward()
    assert all(torch.allclose(p.grad, 0.1 * p.sign() + 0.02 * p) for p in chosen)
    assert layer.layers[0].W_r.grad is None


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS, LENGTHS.tolist()], ids=["full", "ragged", "list"])
def test_activation_penalties_count_real_steps_only(lengths, batch_first):
    layer = random_layer(
        "gru", 3, 4, batch_first=batch_first, penalties=[ActivationPenalty(2.0), TemporalActivationPenalty(3.0)]
    )
    output = random_x(4)
    counts = [STEPS] * BATCH if lengths is None else LENGTHS.tolist()
    squares = [output[t, b].square() for b, n in enumerate(counts) for t in range(n)]
    changes = [(output[t + 1, b] - output[t, b]).square() for b, n in enumerate(counts) for t in range(n - 1)]
    expected = 2.0 * torch.cat(squares).mean() + 3.0 * torch.cat(changes).mean()
    poisoned = output.clone()
    for b, n in enumerate(counts):
        poisoned[n:, b] = float("nan")
    given = poisoned.transpose(0, 1) if batch_first else poisoned
    torch.testing.assert_close(layer.penalty(given, lengths), expected, **CLOSE)


def test_penalties_of_nothing_are_zero():
    layer = random_layer("gru", 3, 4, penalties=[ActivationPenalty(), TemporalActivationPenalty()])
    for steps, batch in ((0, 3), (3, 0), (1, 2)):
        penalty = layer.penalty(torch.zeros(steps, batch, 4, dtype=torch.float64))
        assert penalty.shape == ()
        assert penalty == 0
    assert layer.penalty(random_x(4), torch.zeros(BATCH, dtype=torch.long)) == 0
    assert random_layer("gru", 3, 4).penalty() == 0


def test_a_penalty_of_the_output_reaches_the_parameters():
    layer = random_layer("gru", 3, 4, penalties=[ActivationPenalty(), TemporalActivationPenalty()])
    layer.penalty(layer(random_x(), None, LENGTHS)[0], LENGTHS).backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_wrong_penalties_are_refused():
    with raises(ConfigError, "WeightPenalty: l2 must be 0 or more", "-1"):
        WeightPenalty(l2=-1)
    with raises(ConfigError, "ActivationPenalty: alpha"):
        ActivationPenalty(float("nan"))
    with raises(ConfigError, "ActivationPenalty", r"layer.penalty\(output, lengths\)"):
        random_layer("gru", 3, 4, penalties=[ActivationPenalty()]).penalty()
    with raises(ConfigError, "WeightPenalty", "'U_x'", "Did you mean 'U_"):
        random_layer("gru", 3, 4, penalties=[WeightPenalty("U_x")]).penalty()
    for given in (WeightPenalty(), ("l2",), (WeightPenalty,)):
        with raises(DTypeError, "penalties must be a tuple", "got:"):
            Recurrent("gru", 3, 4, penalties=given)


# --- how parameters start ---------------------------------------------------------------------------------------------


def test_starts_by_name_before_pattern_before_the_cells_own():
    layer = Recurrent("lstm", 4, 4, init={"b_*": 0.5, "b_o": -2.0, "U_*": "identity", "W_[if]": "zeros"})
    p = layer.layers[0]
    assert all(bool((p.get_parameter(f"b_{k}") == (-2.0 if k == "o" else 0.5)).all()) for k in "ifgo")
    assert all(torch.equal(p.get_parameter(f"U_{k}"), torch.eye(4)) for k in "ifgo")
    assert [bool(p.get_parameter(f"W_{k}").any()) for k in "ifgo"] == [False, False, True, True]


def test_chrono_and_its_negative():
    layer = Recurrent("lstm", 3, 50, num_layers=2, bidirectional=True, init={"b_f": chrono(20), "b_i": minus("b_f")})
    for p in [*layer.layers, *layer.layers_reverse]:
        assert torch.equal(p.b_i, -p.b_f)
        assert 0 <= p.b_f.min() < p.b_f.max() <= torch.tensor(19.0).log()
        assert p.b_f.unique().numel() > 40
    assert not torch.equal(layer.layers[0].b_f, layer.layers[1].b_f)


def test_minus_needs_a_parameter_with_values_of_its_own():
    with raises(ConfigError, "parameter 'b_q'", "Did you mean 'b_"):
        Recurrent("lstm", 3, 4, init={"b_i": minus("b_q")})
    with raises(ConfigError, r"minus\('b_f'\)", "is a minus itself"):
        Recurrent("lstm", 3, 4, init={"b_i": minus("b_f"), "b_f": minus("b_o")})
    with raises(ConfigError, r"minus\('b_i'\)", "is a minus itself"):
        Recurrent("lstm", 3, 4, init={"b_i": minus("b_i")})
    with raises(ShapeError, r"minus\('U_f'\)", r"\(4, 4\), not \(4,\)"):
        Recurrent("lstm", 3, 4, init={"b_i": minus("U_f")})


def test_unknown_names_and_patterns_get_the_nearest():
    with raises(ConfigError, "parameter of LSTM 'b_forget'", "one of U_f"):
        Recurrent("lstm", 3, 4, init={"b_forget": 1.0})
    with raises(ConfigError, r"parameter of LSTM 'V_\*'", "one of U_f"):
        Recurrent("lstm", 3, 4, init={"V_*": 1.0})
    with raises(ConfigError, "initialiser 'orthagonal'", "Did you mean 'orthogonal'"):
        Recurrent("lstm", 3, 4, init={"U_*": "orthagonal"})
    with raises(ConfigError, "'chrono' needs its number", r"chrono\(T\)"):
        Recurrent("lstm", 3, 4, init={"b_f": "chrono"})


def test_reset_parameters_starts_anew_from_torchs_generator():
    torch.manual_seed(5)
    layer = Recurrent("clockwork_rnn", 3, 4, num_layers=2, skip="highway")
    first = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    assert not torch.equal(layer.layers[0].W_h, first["layers.0.W_h"])
    assert torch.equal(layer.layers[0].period, first["layers.0.period"])
    torch.manual_seed(5)
    other = Recurrent("clockwork_rnn", 3, 4, num_layers=2, skip="highway")
    assert all(torch.equal(value, first[name]) for name, value in other.state_dict().items())


# --- constants, round trips, seeds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "constants"), [("clockwork_rnn", {"period", "reads"}), ("gru_d", {"mean"})])
def test_what_is_not_learned_is_a_buffer_that_is_saved(name, constants):
    layer = random_layer(name, 3, 4)
    assert not constants & {n.split(".")[-1] for n, _ in layer.named_parameters()}
    assert constants <= {n.split(".")[-1] for n in layer.state_dict()}
    given = random_given(layer, STEPS, BATCH)
    with torch.no_grad():
        for constant in constants:
            layer.layers[0].get_buffer(constant).mul_(2.0).add_(1.0)
    other = random_layer(name, 3, 4)
    assert not torch.equal(other(given.inputs, given.state)[0], layer(given.inputs, given.state)[0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(given.inputs, given.state)[0], layer(given.inputs, given.state)[0])


EVERYTHING = {
    "num_layers": 2, "bidirectional": True, "merge": "mean", "independent": True, "skip": "highway", "learn_state": True,
    "transforms": (Zoneout(0.2),), "penalties": (WeightPenalty(l2=0.1),), "dropout": 0.3,
}  # fmt: skip


def test_a_layer_with_everything_goes_round():
    layer, other = (random_layer("lstm", 3, 4, **EVERYTHING) for _ in range(2))
    x = random_x()
    other.load_state_dict(layer.state_dict())
    twin = copy.deepcopy(layer)
    for mode in (True, False):
        results = []
        for one in (layer, other, twin):
            torch.manual_seed(3)  # dropout between layers draws from torch's generator
            results.append(one.train(mode)(x, None, LENGTHS, seed=1)[0])
        assert torch.equal(results[1], results[0])
        assert torch.equal(results[2], results[0])
    assert twin.engine == layer.engine
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    assert torch.equal(layer(x, None, LENGTHS)[0], results[0])
    text = repr(layer)
    assert all(f"{name}=" in text for name in EVERYTHING)


def test_dropout_between_layers_keeps_the_mean_and_leaves_the_last_output_whole():
    layer = random_layer(resolve_cell("elman", {"activation": "identity"}), 3, 4, num_layers=2, dropout=0.5)
    x = torch.randn(1, 1, 3, dtype=torch.float64).expand(1, 5000, 3)
    samples = layer(x)[0][0].detach()
    expected = layer.eval()(x[:, :1])[0][0, 0]
    error = samples.std(0) / 5000**0.5
    assert (error > 0).all()
    assert ((samples.mean(0) - expected).abs() <= 5 * error).all()
    assert (samples != 0).all()  # it is what the second layer sees that is dropped


def test_seed_as_a_number_and_as_a_tensor():
    layer, x = random_layer("lstm", 3, 4, transforms=(Zoneout(0.5),)), random_x()
    expected = layer(x, seed=12)[0]
    assert torch.equal(layer(x, seed=torch.tensor(12))[0], expected)
    assert torch.equal(layer(x, seed=torch.tensor([12, 0]))[0], expected)
    assert not torch.equal(layer(x, seed=13)[0], expected)


def test_a_state_with_the_clock_of_the_steps():
    """Masks by step need the number of the step: a state has it, counts it for real steps only, and says if it is wrong."""
    layer, x = random_layer("lstm", 3, 4, transforms=(Zoneout(0.5),)), random_x()
    _, state = layer(x, None, LENGTHS)
    assert state._fields == ("h", "c", "time")
    assert state.time.dtype == torch.int64
    assert torch.equal(state.time[0, :, 0], LENGTHS)
    with raises(ShapeError, "needs 3 tensors", "got:.*2", r"\(h, c, time\)"):
        layer(x, (state.h, state.c))
    with raises(DTypeError, "state time", "float64", "int64"):
        layer(x, (state.h, state.c, state.time.double()))


class Timed(Cell):
    """A state of its own that is called as the layer's clock."""

    state = ("h", "time")

    def step(self, x, h, time):
        return tanh(self.affine("h", x, h)), time + 1


def test_a_state_called_time_beside_the_clock_is_refused():
    assert random_layer(Timed, 3, 4)(random_x())[1].time.shape == (1, BATCH, 4)
    with raises(ConfigError, "'time'", "Timed"):
        Recurrent(Timed, 3, 4, transforms=(Zoneout(0.5),))


# --- what is said about mistakes --------------------------------------------------------------------------------------


def lines(error):
    """A message of the house has what was got on a line of its own, and what to do or what was expected on another."""
    text = str(error.value)
    assert "\n  got:      " in text
    assert "\n  expected: " in text or "\n  try:      " in text
    return text


X = torch.randn(5, 2, 3)


@pytest.mark.parametrize(
    ("error", "call", "parts"),
    [
        (ShapeError, lambda net: net(torch.randn(5, 2, 7)), ["axis of `x` is 7", "input_size=3", "(5, 2, 7)", "(T, B, 3)"]),
        (ShapeError, lambda net: net(torch.randn(3, 5, 2)), ["last axis of `x` is 2", "the axis of size 3 must come last"]),
        (ShapeError, lambda net: net(torch.randn(5, 3)), ["x must have 3 axes", "add the batch axis"]),
        (ShapeError, lambda net: net(X, torch.zeros(1, 3, 4)), ["state h", "(1, 3, 4)", "(1, 2, 4)"]),
        (ShapeError, lambda net: net(X, torch.zeros(2, 1, 4)), ["state h", "batch_first does not touch the state"]),
        (DTypeError, lambda net: net(X, torch.zeros(1, 2, 4).double()), ["state h", "torch.float64", "torch.float32"]),
        (ShapeError, lambda net: net(X, lengths=torch.tensor([6, 1])), ["longer", "lengths[0] = 6", "T=5", "0 to 5"]),
        (ShapeError, lambda net: net(X, lengths=torch.tensor([1, -2])), ["negative", "lengths[1] = -2"]),
        (ShapeError, lambda net: net(X, lengths=torch.ones(5, 2).long()), ["one length for each", "(5, 2)", "mask.sum"]),
        (DTypeError, lambda net: net(X, lengths=torch.ones(5, 2).bool()), ["integers", "torch.bool", "mask.sum"]),
        (DTypeError, lambda net: net(X, lengths=torch.ones(5, 2)), ["integers", "torch.float32"]),
        (ShapeError, lambda net: net(X, lengths=torch.full((5,), 2)), ["one length for each", "swapped", "batch_first"]),
        (ShapeError, lambda net: net(torch.randn(2, 9, 3), lengths=[9, 3, 1, 1, 1, 1, 1, 1, 1]), ["swapped", "batch_first"]),
        (DTypeError, lambda net: net(X.double()), ["x is of another dtype", "torch.float64", "x.to(torch.float32)"]),
        (DTypeError, lambda net: net(X.numpy()), ["must be tensors", "ndarray"]),
        (DTypeError, lambda net: net(X, "h"), ["must be tensors", "str"]),
        (DTypeError, lambda net: net(X, 3), ["must be tensors", "int"]),
        (ShapeError, lambda net: net(X, ()), ["got:      0", "(h)"]),
        (ShapeError, lambda net: net.step(X), ["step", "x must have 2 axes", "(B, 3)"]),
        (ShapeError, lambda net: net.step(torch.randn(2, 4)), ["step", "last axis of `x` is 4"]),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_was_wrong_what_was_got_and_what_to_do(error, call, parts):
    with pytest.raises(error) as caught:
        call(Recurrent("gru", 3, 4))
    text = lines(caught)
    for piece in parts:
        assert piece in text
    assert "Recurrent" in text
