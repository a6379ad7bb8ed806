"""Transforms on every cell: what they do, what noise does to a mean, and what its masks depend on.

That their gradients are right stands in `test_derived_gradients`.
"""

import math

import pytest
import torch
from torch.nn import functional

from builds import NOISY, TRANSFORMS, copying, every_least, every_noisy, idle, random_given, run, small, step, visible
from carousel.errors import ConfigError, DTypeError
from carousel.graph import transforms
from carousel.graph.kinds import Eager, Noise
from carousel.graph.kinds.noise import philox
from carousel.nn import (
    ClipState,
    InputDropout,
    Normalise,
    Projected,
    Recurrent,
    RecurrentDropout,
    StateDropout,
    Transform,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from cases import cell_name, each, every_cell, floating, random_layer, resolve_cell, tensors
from oracles.philox import philox4x32

STEPS, BATCH = 4, 3
LENGTHS = torch.tensor([2, 0, 4])
CLOSE = {"rtol": 1e-12, "atol": 1e-13}  # float64 rounding; a product over more rows may sum in another order
# A mean of n independent draws is off by more than this many standard errors once in 1.7 million.
ERRORS = 5.0


def build(case, transform, **options):
    transforms = transform if isinstance(transform, tuple) else (transform,)
    layer = case.layer(transforms=transforms, **options)
    return layer, random_given(layer, STEPS, BATCH)


def without(layer, case, **options):
    """The same layer without transforms."""
    plain = case.layer(**options)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "gain_" not in name})
    return plain


def untimed(given, plain):
    """The same call for a layer that may not count steps."""
    state = type(plain.initial_state(1))(*(getattr(given.state, name) for name in plain.initial_state(1)._fields))
    return type(given)(given.inputs, state, given.context)


def close(got, expected):
    for one, other in zip(tensors(got), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


# --- every transform on every cell ------------------------------------------------------------------------------------


@every_cell
@every_noisy
def test_evaluation_is_certain_and_training_is_decided_by_the_seed(case, transform):
    layer, given = build(case, transform)
    layer.eval()
    quiet = run(layer, given)[0]
    assert torch.equal(run(layer, given)[0], quiet)
    assert torch.equal(run(layer, given, seed=1)[0], quiet)
    if not isinstance(transform, Zoneout):
        plain = without(layer, case)
        close(run(plain, untimed(given, plain))[0], quiet)
    layer.train()
    first, again, other = (run(layer, given, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    if idle(cell_name(case.cell), transform):
        assert torch.equal(first, quiet)
    else:
        assert not torch.equal(first, other)
        assert not torch.equal(first, quiet)


@every_cell
def test_quiet_transforms_are_the_same_in_both_modes(case):
    for transform in (Normalise("layer"), Normalise("rms"), ClipState(0.1)):
        layer, given = build(case, transform)
        trained = run(layer, given)[0]
        assert torch.equal(run(layer.eval(), given)[0], trained)
        plain = without(layer, case)
        assert not torch.equal(run(plain, untimed(given, plain))[0], trained)


@every_cell
@every_least
def test_chunks_and_steps_with_one_seed_are_the_whole(case, transform):
    layer, given = build(case, transform)
    whole, final = run(layer, given, seed=7)
    state, pieces = given.state, []
    for begin in (0, 1):
        chunk = given.steps(slice(begin, 1 if begin == 0 else STEPS), state)
        piece, state = run(layer, chunk, seed=7)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)
    close(state, final)
    state, pieces = given.state, []
    for t in range(STEPS):
        piece, state = step(layer, given, t, state, seed=7)
        pieces.append(piece)
    torch.testing.assert_close(torch.stack(pieces), whole, **CLOSE)
    close(state, final)


@every_cell
@every_least
def test_ragged_rows_keep_their_masks_and_padding_reaches_nothing(case, transform):
    options = {"bidirectional": True, "num_layers": case.depth(2)}
    layer, given = build(case, transform, **options)
    padding = torch.arange(STEPS)[:, None] >= LENGTHS
    for name, value in given.inputs.items():
        shape = padding.reshape(*padding.shape, *[1] * (value.dim() - 2))
        given.inputs[name] = value.masked_fill(shape, float("nan")).requires_grad_()
    output, final = run(layer, given, LENGTHS, seed=3)
    (output.square().sum() + sum(part.square().sum() for part in floating(final))).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    assert all((value.grad[padding] == 0).all() for value in given.inputs.values())
    assert (output[padding] == 0).all()
    given.inputs = {name: value.nan_to_num() for name, value in given.inputs.items()}
    other, _ = run(layer, given, torch.tensor([0, 1, 4]), seed=3)  # other rows are longest and shortest; row 2 is as it was
    torch.testing.assert_close(other[:, 2], output[:, 2], **CLOSE)


@every_cell
def test_zoneout_keeps_old_numbers_or_takes_new_ones(case):
    """In training each number of each state is the old or the new one; in evaluation, their mean."""
    layer, given = build(case, Zoneout(0.25))
    plain = without(layer, case)
    _, after = step(plain, given, 0, untimed(given, plain).state)
    drawn = [step(layer, given, 0, given.state, seed=seed)[1] for seed in range(8)]
    _, mean = step(layer.eval(), given, 0, given.state)
    kept = []
    for name in layer.cell.state:
        old, new = getattr(given.state, name), getattr(after, name)
        torch.testing.assert_close(getattr(mean, name), 0.75 * new + 0.25 * old, **CLOSE)
        for got in (getattr(mixed, name) for mixed in drawn):
            took = torch.isclose(got, new, rtol=1e-13, atol=1e-14)  # two schedules may round a last bit otherwise
            assert ((got == old) | took).all()
            kept.append((got == old)[old != new].double())
    share = torch.cat(kept).mean().item()
    assert abs(share - 0.25) <= ERRORS * math.sqrt(0.25 * 0.75 / torch.cat(kept).numel())


# --- means over masks -------------------------------------------------------------------------------------------------


def assert_mean(samples, expected):
    """The mean over the first axis is `expected`, within `ERRORS` standard errors of each number."""
    error = samples.std(0) / math.sqrt(len(samples))
    assert (error > 0).any(), "nothing is random"
    assert ((samples.mean(0) - expected).abs() <= ERRORS * error + 1e-12).all()


ROWS = 4000
LINEAR = resolve_cell("elman", {"activation": "identity"})


def many(layer, transform_seed=11, rows=ROWS, fields=("h",)):
    """One step on many rows that see the same, in training and in evaluation: by state, the rows, and the one row."""
    torch.manual_seed(4)
    x = torch.randn(1, 3, dtype=torch.float64)
    start = each(lambda part: part.to(torch.float64) if part.is_floating_point() else part, layer.initial_state(1))
    start = each(lambda part: torch.randn_like(part) if part.is_floating_point() else part, start)
    wide = each(lambda part: part.expand(-1, rows, -1), start)
    _, drawn = layer.train().step(x.expand(rows, 3), wide, seed=transform_seed)
    _, quiet = layer.eval().step(x, start)
    return {name: (getattr(drawn, name)[0].detach(), getattr(quiet, name)[0, 0].detach()) for name in fields}


@pytest.mark.parametrize("transform", [InputDropout(0.3), StateDropout(0.6), VariationalDropout(0.2, 0.4)], ids=str)
def test_the_mean_over_masks_is_the_evaluation_value_where_the_step_is_linear(transform):
    layer = random_layer(LINEAR, 3, 4, transforms=(transform,))
    samples, expected = many(layer)["h"]
    assert_mean(samples, expected)


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize(
    ("name", "state"),
    [("lstm", "c"), ("peephole_lstm", "c"), ("coupled_lstm", "c"), ("gru", "h"), ("mgu", "h"), ("mingru", "h")],
)
def test_the_mean_over_dropped_candidates_is_the_evaluation_value(name, state, per):
    """The candidate enters the memory linearly."""
    layer = random_layer(name, 3, 4, transforms=(RecurrentDropout(0.35, per=per),))
    samples, expected = many(layer, fields=(state,))[state]
    assert_mean(samples, expected)


@pytest.mark.parametrize("name", ["lstm", "gru", "elman", "sru"])
def test_the_mean_over_zoned_out_units_is_the_evaluation_value(name):
    layer = random_layer(name, 3, 4, transforms=(Zoneout(0.2),))
    for samples, expected in many(layer, fields=layer.cell.state).values():
        assert_mean(samples, expected)


def test_zoneout_has_a_probability_for_each_state():
    layer = random_layer("lstm", 3, 4, transforms=(Zoneout({"c": 0.5}),))
    found = many(layer, fields=("h", "c"))
    assert_mean(*found["c"])
    assert (found["h"][0] == found["h"][0][0]).all()


def test_the_mean_over_dropped_weights_is_the_evaluation_value():
    layer = random_layer(LINEAR, 3, 4, transforms=(WeightDrop(0.4, "*"),))
    torch.manual_seed(4)
    x, h = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 1, 4, dtype=torch.float64)
    with torch.no_grad():
        samples = torch.stack([layer.step(x, (h,), seed=seed)[0][0] for seed in range(400)])
        expected = layer.eval().step(x, (h,))[0][0]
    assert_mean(samples, expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["input", "candidate", "zoneout", "weight"])
def test_the_share_of_what_is_dropped_is_p(kind, p):
    size, rows = 50, 400
    if kind == "weight":
        layer = copying(WeightDrop(p, "W_h"), 150)
        torch.nn.init.ones_(layer.layers[0].W_h)
        seen = layer(torch.eye(150)[None], seed=1)[0].detach()  # (1, rows: each a column, units)
        kept_value = 1 / (1 - p)
    elif kind == "input":
        seen = copying(InputDropout(p), size)(torch.ones(1, rows, size), seed=1)[0].detach()
        kept_value = 1 / (1 - p)
    elif kind == "candidate":
        seen = visible(RecurrentDropout(p), size)(torch.ones(1, rows, size), seed=1)[0].detach()
        kept_value = 1 / (1 - p)
    else:
        seen = visible(Zoneout(p), size)(torch.ones(1, rows, size), seed=1)[0].detach()
        kept_value = 1.0
    assert set(torch.unique((seen / kept_value).round(decimals=5)).tolist()) == {0.0, 1.0}
    share = (seen == 0).double().mean().item()
    assert abs(share - p) <= ERRORS * math.sqrt(p * (1 - p) / seen.numel())


def test_p_of_zero_does_nothing_at_all():
    for transform in (InputDropout(0.0), StateDropout(0.0), RecurrentDropout(0), Zoneout(0.0), WeightDrop(0.0)):
        layer = random_layer("lstm", 3, 4, transforms=(transform,))
        plain = random_layer("lstm", 3, 4)
        plain.load_state_dict(layer.state_dict())
        x = torch.randn(3, 2, 3, dtype=torch.float64)
        assert torch.equal(layer(x)[0], plain(x)[0])
        assert layer.initial_state(1)._fields == ("h", "c")


# --- what a mask depends on -------------------------------------------------------------------------------------------

SIZE = 64
ONES = torch.ones(5, 6, SIZE)


def masks(layer, x=ONES, lengths=None, *, state=None, **more):
    """The masks that a visible layer shows: True where a number was kept, (T, B, SIZE)."""
    return layer(x, state, lengths, **more)[0].detach() != 0


def apart(*several):
    """Masks of independent units agree in half of their places, give or take five standard errors."""
    for i, one in enumerate(several):
        for other in several[:i]:
            share = (one == other).double().mean().item()
            assert abs(share - 0.5) <= ERRORS * 0.5 / math.sqrt(one.numel())


BY_STEP = {"candidate": visible(RecurrentDropout(0.5), SIZE), "zoneout": visible(Zoneout(0.5), SIZE)}
BY_SEQUENCE = {"candidate": visible(RecurrentDropout(0.5, per="sequence"), SIZE), "input": copying(InputDropout(0.5), SIZE)}


@pytest.mark.parametrize("name", BY_SEQUENCE)
def test_masks_by_sequence_are_constant_over_steps_and_differ_between_rows(name):
    kept = masks(BY_SEQUENCE[name], seed=1)
    assert (kept == kept[0]).all()
    apart(*kept[0])


def test_masks_of_what_products_see_of_states_are_constant_over_steps():
    layer = visible(StateDropout(0.5), SIZE)
    with torch.no_grad():
        layer.layers[0].U_h.copy_(torch.eye(SIZE))
        layer.layers[0].b_h.zero_()
    state, nothing = (torch.ones(1, 6, SIZE),), torch.zeros(4, 6, SIZE)
    kept = masks(layer, nothing, seed=1, state=state)
    assert (kept == kept[0]).all()  # h' = drop(h): with a mask for each step, fewer and fewer would be left
    apart(*kept[0])


def test_masks_by_step_differ_between_steps_and_rows():
    kept = masks(BY_STEP["candidate"], seed=1)
    apart(*kept.flatten(0, 1))


def test_masks_of_weights_are_the_same_for_all_rows_and_steps():
    layer = copying(WeightDrop(0.5, "W_h"), SIZE)
    torch.nn.init.ones_(layer.layers[0].W_h)
    one_hot = torch.zeros(5, 6, SIZE)
    one_hot[..., 7] = 1.0
    kept = masks(layer, one_hot, seed=1)
    assert (kept == kept[0, 0]).all()
    assert 0 < kept[0, 0].sum() < SIZE
    columns = masks(layer, torch.eye(SIZE)[None], seed=1)[0]
    apart(*columns)


def test_only_the_named_matrices_are_dropped():
    layer = random_layer(LINEAR, SIZE, SIZE, transforms=(WeightDrop(0.5, "U_*"),))
    x, zero = torch.randn(1, 6, SIZE, dtype=torch.float64), torch.zeros(1, 6, SIZE, dtype=torch.float64)
    quiet = layer.eval()(x, (zero,))[0]
    close(layer.train()(x, (zero,))[0], quiet)  # W_h and b_h are whole
    state = (torch.randn(1, 6, SIZE, dtype=torch.float64),)
    assert not torch.allclose(layer(x, state)[0], layer.eval()(x, state)[0])


@every_cell
def test_weight_drop_drops_matrices_never_biases_or_gains(case):
    """A bias has one number for each unit, whatever axes it is written with."""
    layer = case.layer(transforms=(Normalise("layer"), WeightDrop(0.5, "*")))
    given = random_given(layer, STEPS, BATCH)
    with torch.no_grad():  # whatever is multiplied is 0, so only what is added is left
        for name, parameter in layer.named_parameters():
            if name.split(".")[-1][:2] in ("W_", "U_", "V_", "R_") or name.split(".")[-1] in ("W", "U"):
                parameter.zero_()
    first, second = run(layer, given, seed=1)[0], run(layer, given, seed=2)[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", NOISY)
def test_masks_do_not_depend_on_the_number_of_threads(name):
    layer = random_layer("lstm", 20, 30, transforms=(NOISY[name],))
    x = torch.randn(6, 40, 20, dtype=torch.float64)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(layer(x, seed=1)[0])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("layer", [*BY_STEP.values(), *BY_SEQUENCE.values()], ids=[*BY_STEP, *BY_SEQUENCE])
def test_a_mask_belongs_to_a_place_in_the_batch_not_to_how_the_batch_is_packed(layer):
    """Masks are numbered by the row in the caller's batch. Lengths sort the rows inside, and change no mask."""
    whole = masks(layer, seed=1)
    lengths = torch.tensor([2, 5, 0, 3, 5, 1])
    ragged = masks(layer, lengths=lengths, seed=1)
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(ragged[:n, b], whole[:n, b])
    assert torch.equal(masks(layer, ONES[:, :4], seed=1), whole[:, :4])  # rows that join later change nothing


def test_a_permuted_batch_keeps_the_masks_in_their_places():
    """So permuting the sequences permutes what each place's mask is applied to, and not the masks."""
    layer = copying(InputDropout(0.5), SIZE)
    x, order = torch.rand(5, 6, SIZE) + 1, torch.tensor([3, 0, 5, 1, 4, 2])
    straight, mixed = layer(x, seed=1)[0], layer(x[:, order], seed=1)[0]
    kept = straight != 0
    assert torch.equal(mixed, torch.where(kept, x[:, order] * 2, 0.0))
    assert torch.equal(straight, torch.where(kept, x * 2, 0.0))


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_layers_and_directions_have_masks_of_their_own(per):
    layer = visible(RecurrentDropout(0.5, per=per), SIZE, layers=3, bidirectional=True)
    _, final = layer(torch.ones(1, 40, SIZE), seed=1)
    apart(*(part != 0 for part in final.h))


def test_both_directions_number_a_sequence_s_steps_from_their_own_start():
    layer = visible(RecurrentDropout(0.5), SIZE, bidirectional=True)
    lengths = torch.tensor([5, 2, 3, 5, 1, 4])
    whole, ragged = (layer(ONES, None, n, seed=1)[0].detach()[..., SIZE:] != 0 for n in (None, lengths))
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(ragged[:n, b].flip(0), whole[:, b].flip(0)[:n])


def test_transforms_have_masks_of_their_own():
    """With old = -1 and new = 2 or 0, a number tells both masks; had they one mask, no 0 would be left."""
    layer = visible((RecurrentDropout(0.5), Zoneout(0.5)), SIZE)
    h = layer(torch.ones(1, 40, SIZE), (torch.full((1, 40, SIZE), -1.0), torch.zeros(1, 40, 1).long()), seed=1)[0]
    shares = {value: (h == value).double().mean().item() for value in (-1.0, 0.0, 2.0)}
    error = ERRORS * 0.5 / math.sqrt(h.numel())
    for value, share in ((-1.0, 0.5), (0.0, 0.25), (2.0, 0.25)):
        assert abs(shares[value] - share) <= error


@pytest.mark.parametrize(
    "transform",
    [RecurrentDropout(0.5), RecurrentDropout(0.5, per="sequence"), InputDropout(0.5), WeightDrop(0.5, "W_h")],
    ids=str,
)
def test_a_transform_given_twice_draws_twice(transform):
    """Two dropouts of a half keep a quarter; with one mask for both they would keep a half."""
    layer = visible((transform, transform), SIZE)
    with torch.no_grad():
        layer.layers[0].b_h.fill_(float(isinstance(transform, RecurrentDropout)))
        layer.layers[0].W_h.copy_(torch.eye(SIZE))
    x = torch.zeros(1, 60, SIZE) if isinstance(transform, RecurrentDropout) else torch.ones(1, 60, SIZE)
    kept = masks(layer, x, seed=1)
    count = SIZE if isinstance(transform, WeightDrop) else kept.numel()
    assert abs(kept.double().mean().item() - 0.25) <= ERRORS * math.sqrt(0.25 * 0.75 / count)


def test_the_same_seed_gives_the_same_masks_as_a_number_and_as_two_words():
    layer = BY_STEP["candidate"]
    high, low = 5, 0xFFFFFFF0
    expected = masks(layer, seed=(high << 32) | low)
    assert torch.equal(masks(layer, seed=torch.tensor([low, high])), expected)
    assert torch.equal(masks(layer, seed=torch.tensor((high << 32) | low)), expected)
    assert torch.equal(masks(layer, seed=torch.tensor([low - 2**32, high])), expected)  # a word is its 32 bits
    apart(expected, *(masks(layer, seed=seed) for seed in (0, 1, -1, 2**63 - 1, high << 32, low)))


def test_torchs_generator_gives_the_seed_where_none_is_given():
    layer = BY_STEP["candidate"]
    torch.manual_seed(1)
    first, second = masks(layer), masks(layer)
    torch.manual_seed(1)
    assert torch.equal(masks(layer), first)
    apart(first, second)


def test_calls_without_noise_leave_torchs_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    for layer in (random_layer("lstm", 3, 4), random_layer("lstm", 3, 4, transforms=(Zoneout(0.5),)).eval()):
        torch.manual_seed(1)
        layer(torch.zeros(2, 2, 3, dtype=torch.float64))
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transform", [RecurrentDropout(0.3), InputDropout(0.3), Zoneout(0.3), WeightDrop(0.3, "*")], ids=str)
def test_masks_do_not_depend_on_the_dtype(transform, dtype):
    """Where the dtype rounds a number to p, a mask may differ: bfloat16 has 2^-9 there, once in 250 numbers at most."""
    layer = copying(transform, SIZE)
    exact = masks(layer, torch.ones(5, 40, SIZE), seed=1)
    assert not exact.all()
    got = masks(layer.to(dtype), torch.ones(5, 40, SIZE, dtype=dtype), seed=1)
    assert (got != exact).double().mean() <= (1 / 250 if dtype == torch.bfloat16 else 1 / 2000)


# --- norms, limits, projections, candidates ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("eps", [1e-5, 1e-1])
def test_normalise_is_torchs_norm_of_each_product_times_a_gain(kind, eps):
    layer = random_layer("elman", 3, 4, transforms=(Normalise(kind, eps=eps),))
    p = layer.layers[0]

    def norm(values, gain):
        if kind == "layer":
            return functional.layer_norm(values, (4,), gain, eps=eps)
        return functional.rms_norm(values, (4,), gain, eps=eps)

    x, h = torch.randn(6, 5, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    output, _ = layer(x, h[None])
    for x_t, y_t in zip(x, output, strict=True):
        h = torch.tanh(norm(x_t @ p.W_h.T, p.gain_W_h) + norm(h @ p.U_h.T, p.gain_U_h) + p.b_h)
        close(y_t, h)


def test_normalise_of_a_picture_is_torchs_norm_over_channels_and_places():
    layer = random_layer(small("conv_lstm").cell, (2, 3, 2), 2, transforms=(Normalise("layer", "W_*"),))
    p = layer.layers[0]
    assert p.gain_W_i.shape == (2, 1, 1)
    x = torch.randn(1, 5, 2, 3, 2, dtype=torch.float64)
    with torch.no_grad():
        normed = {
            k: p.get_parameter(f"gain_W_{k}")
            * functional.layer_norm(functional.conv2d(x[0], p.get_parameter(f"W_{k}"), padding=1), (2, 3, 2))
            + p.get_parameter(f"b_{k}")
            for k in "igo"
        }
        c = torch.sigmoid(normed["i"]) * torch.tanh(normed["g"])
        h = torch.sigmoid(normed["o"] + p.p_o * c) * torch.tanh(c)
    torch.testing.assert_close(layer(x)[0][0], h, **CLOSE)


def test_normalise_of_named_products_leaves_the_others():
    layer = random_layer("lstm", 3, 4, transforms=(Normalise("layer", "U_*"),))
    assert {n for n, _ in layer.layers[0].named_parameters() if n.startswith("gain")} == {f"gain_U_{k}" for k in "ifgo"}


@every_cell
@pytest.mark.parametrize("first", ["weight drop", "layer norm"])
def test_a_norm_finds_its_products_whatever_was_dropped_before(case, first):
    """Dropping weights, then a norm: the norm acts in training as in evaluation."""
    drop, norm = WeightDrop(1e-9, "*"), Normalise("layer")
    layer = case.layer(transforms=(drop, norm) if first == "weight drop" else (norm, drop))
    given = random_given(layer, STEPS, BATCH)
    torch.testing.assert_close(run(layer, given, seed=1)[0], run(layer.eval(), given)[0], rtol=1e-7, atol=1e-7)


def test_a_norm_of_a_matrix_that_is_computed_acts():
    """The clockwork's recurrent matrix is masked before it multiplies."""
    case = small("clockwork_rnn")
    layer = case.layer(transforms=(Normalise("layer", "U_h"),))
    assert "gain_U_h" in dict(layer.layers[0].named_parameters())


@every_cell
def test_clipped_states_stay_within_their_limit(case):
    layer, given = build(case, ClipState(0.1))
    plain = without(layer, case)
    _, free = run(plain, untimed(given, plain))
    assert max(part.abs().max() for part in floating(free)) > 0.1, "nothing would be clipped"
    state = given.state
    for t in range(STEPS):
        _, state = step(layer, given, t, state)
        assert all(part.abs().max() <= 0.1 for part in floating(state))


def test_only_named_states_are_clipped_and_the_clipped_one_is_the_output():
    layer = random_layer("lstm", 3, 4, transforms=(ClipState(0.01, ("h",)),))
    output, state = layer(torch.randn(3, 2, 3, dtype=torch.float64))
    assert output.abs().max() <= 0.01
    assert torch.equal(output[-1], state.h[0])
    assert state.c.abs().max() > 0.01


def test_projected_lstm_is_the_lstm_with_projection():
    mine = random_layer(Projected(cell=resolve_cell("lstm"), proj_size=2), 3, 4, num_layers=2, bidirectional=True)
    theirs = random_layer(resolve_cell("lstmp", {"proj_size": 2}), 3, 4, num_layers=2, bidirectional=True)
    theirs.load_state_dict(mine.state_dict())
    given = random_given(theirs, STEPS, BATCH)
    for lengths in (None, LENGTHS):
        got, expected = (run(layer, given, lengths) for layer in (mine, theirs))
        close(got[0], expected[0])
        close(tuple(got[1]), tuple(expected[1]))


@pytest.mark.parametrize("name", ["elman", "jordan", "multiplicative_lstm"])
def test_projected_cells_feed_back_what_is_projected(name):
    """By hand, from the cell itself: its new state, made of the projected one, projected."""
    layer = random_layer(Projected(cell=resolve_cell(name), proj_size=2), 3, 4)
    state = layer.cell.state[0]
    assert layer.initial_state(1)._asdict()[state].shape == (1, 1, 2)
    given = random_given(layer, STEPS, BATCH)
    output, final = run(layer, given)
    other = random_given(layer, STEPS, BATCH)
    changed = run(layer, type(given)(given.inputs, other.state))[0]
    assert not torch.allclose(output[0], changed[0])
    if name != "jordan":
        assert torch.equal(output[-1], getattr(final, state)[0])


def test_a_state_that_is_multiplied_unit_by_unit_cannot_be_projected():
    with pytest.raises(ConfigError, match=r"(?s)unknown state of LSTM 'q'.*one of c, h"):
        Projected(cell=resolve_cell("lstm"), proj_size=2, projected="q")


GATES = {
    "lstm": ("c", lambda p, x, h, c: torch.sigmoid(x @ p.W_f.T + h @ p.U_f.T + p.b_f) * c),
    "peephole_lstm": ("c", lambda p, x, h, c: torch.sigmoid(x @ p.W_f.T + h @ p.U_f.T + p.b_f + p.p_f * c) * c),
    "coupled_lstm": ("c", lambda p, x, h, c: (1 - torch.sigmoid(x @ p.W_i.T + h @ p.U_i.T + p.b_i)) * c),
    "gru": ("h", lambda p, x, h, _: torch.sigmoid(x @ p.W_z.T + h @ p.U_z.T + p.b_z) * h),
    "gru_reset_after": ("h", lambda p, x, h, _: torch.sigmoid(x @ p.W_z.T + h @ p.U_z.T + p.b_z) * h),
    "mgu": ("h", lambda p, x, h, _: (1 - torch.sigmoid(x @ p.W_f.T + h @ p.U_f.T + p.b_f)) * h),
}


@pytest.mark.parametrize("name", GATES)
def test_recurrent_dropout_drops_the_candidate_and_never_the_memory(name):
    """Where the candidate is dropped, the memory is what the gate kept of it; elsewhere the candidate is doubled."""
    layer = random_layer(name, 3, 40, transforms=(RecurrentDropout(0.5),))
    x = torch.randn(30, 3, dtype=torch.float64)
    state = each(lambda part: torch.randn_like(part) if part.is_floating_point() else part, layer.initial_state(30))
    which, keep = GATES[name]
    _, after = layer.step(x, state, seed=1)
    _, mean = layer.eval().step(x, state)
    memory, quiet = getattr(after, which)[0], getattr(mean, which)[0]
    kept = keep(layer.layers[0], x, state.h[0], getattr(state, which)[0])
    near = {"rtol": 1e-12, "atol": 1e-14}
    dropped = torch.isclose(memory, kept, **near)
    assert torch.isclose(memory, kept + 2 * (quiet - kept), rtol=1e-11, atol=1e-13)[~dropped].all()
    share = dropped.double().mean().item()
    assert abs(share - 0.5) <= ERRORS * 0.5 / math.sqrt(dropped.numel())


def test_five_hundred_steps_of_recurrent_dropout_leave_an_open_memory_bit_equal():
    layer = random_layer("lstm", 3, 8, transforms=(RecurrentDropout(0.5),))
    with torch.no_grad():
        layer.layers[0].b_i.fill_(-1e4)
        layer.layers[0].b_f.fill_(1e4)
    state = each(lambda p: torch.randn_like(p) if p.is_floating_point() else p, layer.initial_state(2))
    with torch.no_grad():
        _, final = layer(torch.randn(500, 2, 3, dtype=torch.float64), state)
    assert torch.equal(final.c, state.c)


# --- what is said about mistakes --------------------------------------------------------------------------------------


def says(*parts):
    return pytest.raises(ConfigError, match="(?s)" + "".join(f"(?=.*{part})" for part in parts))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1, float("nan"), "0.5", True, None])
@pytest.mark.parametrize("make", [InputDropout, StateDropout, RecurrentDropout, Zoneout, WeightDrop])
def test_a_probability_is_from_0_to_below_1(make, p):
    with says(make.__name__, "probability", "got:", "expected: 0 up to, not including, 1"):
        make(p)


def test_each_probability_is_named():
    with says("VariationalDropout: state", "probability"):
        VariationalDropout(input=0.1, state=2.0)
    with says("Zoneout: c", "probability", "1.5"):
        Zoneout({"h": 0.1, "c": 1.5})


@pytest.mark.parametrize(
    ("transform", "parts"),
    [
        (Zoneout({"d": 0.1}), ["Zoneout", "state of LSTM 'd'", "one of c, h"]),
        (ClipState(1.0, ("hh",)), ["ClipState", "state of LSTM 'hh'", "Did you mean 'h'"]),
        (WeightDrop(0.1, "U_x"), ["WeightDrop", "'U_x'", "Did you mean 'U_", "one of U_f"]),
        (Normalise("layer", "V_*"), ["Normalise", r"'V_\*'", "one of U_f"]),
        (RecurrentDropout(0.1, value="gg"), ["RecurrentDropout", "value of LSTM 'gg'", "Did you mean 'g'"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_unknown_names_get_the_nearest(transform, parts):
    with says(*parts):
        Recurrent("lstm", 3, 4, transforms=(transform,))


def test_unknown_choices_get_the_nearest():
    with says("Normalise", "kind 'layers'", "Did you mean 'layer'"):
        Normalise("layers")
    with says("RecurrentDropout", "'steps'", "Did you mean 'step'"):
        RecurrentDropout(0.1, per="steps")
    with says("ClipState", "limit must be positive", "got:"):
        ClipState(0.0)


@pytest.mark.parametrize("given", [("zoneout",), (Zoneout,), Zoneout(0.1), (None,)], ids=["name", "class", "no tuple", "none"])
def test_what_is_no_transform_is_refused(given):
    with pytest.raises(DTypeError, match=r"(?s)transforms must be a tuple.*got:.*expected: \(Zoneout"):
        Recurrent("lstm", 3, 4, transforms=given)


@pytest.mark.parametrize(
    "seed", [torch.tensor([5]), torch.tensor([1, 2, 3]), torch.tensor(1.0), 2**64, 1.5, True, "a"], ids=str
)
def test_what_is_no_seed_is_refused(seed):
    layer = Recurrent("lstm", 3, 4, transforms=(Zoneout(0.5),))
    with says("seed", "got:", "expected: a whole number of 64 bits"):
        layer(torch.zeros(2, 2, 3), seed=seed)


# --- the noise itself -------------------------------------------------------------------------------------------------


def test_philox_is_the_transcription_on_random_counters(seed):
    generator = torch.Generator().manual_seed(seed)
    counters = torch.randint(0, 2**32, (200, 6), generator=generator)
    edges = torch.tensor([[0] * 6, [2**32 - 1] * 6, [2**31] * 6, [2**16, 2**16 - 1, 2**31 - 1, 1, 2**32 - 1, 0]])
    rows = torch.cat([counters, edges])
    words = torch.stack(philox([rows[:, i] for i in range(4)], [rows[:, 4], rows[:, 5]]), 1)
    for row, got in zip(rows.tolist(), words.tolist(), strict=True):
        assert tuple(got) == tuple(philox4x32(row[:4], row[4:]))
        assert tuple(philox(row[:4], row[4:])) == tuple(got)  # on Python's integers too


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize("axes", [(6,), (2, 5), (1,), (3, 1, 2)])
def test_noise_is_the_upper_24_bits_of_the_words_of_its_unit(by_row, by_step, axes):
    stream, words = 0xDEADBEEF, torch.tensor([123456789, 0xFEDCBA98])
    row, time = torch.tensor([[0], [4], [70000]]), torch.tensor([[9], [0], [3]])
    given = [words, *([row] if by_row else []), *([time] if by_step else [])]
    kind = Noise(stream, axes, by_row=by_row, by_step=by_step)
    got = kind.eager(Eager(torch, {}, torch.float64), *given)
    rows = 3 if by_row or by_step else 1
    got = got.reshape(rows, -1)
    for r in range(rows):
        for unit in range(math.prod(axes)):
            counter = (
                unit // 4,
                int(time[r]) if by_step else 0xFFFFFFFF,
                int(row[r]) if by_row else 0xFFFFFFFF,
                stream,
            )
            word = philox4x32(counter, words.tolist())[unit % 4]
            assert got[r, unit].item() == (word >> 8) / 2**24


@pytest.mark.parametrize("by", ["units", "rows", "steps", "seeds"])
def test_noise_is_uniform(by):
    """Chi-square over 64 bins. Its mean is 63 and its standard deviation 11.2: within six of them."""
    count = 1 << 14
    along = torch.arange(count)[:, None]
    one = torch.zeros(count, 1, dtype=torch.long)
    on = Eager(torch, {}, torch.float64)
    if by == "units":
        noise = Noise(1, (count,), False, False).eager(on, torch.tensor([1, 2]))
    elif by == "seeds":
        noise = torch.cat([Noise(1, (16,), False, False).eager(on, torch.tensor([seed, 0])) for seed in range(count // 16)])
    else:
        row, time = (along, one) if by == "rows" else (one, along)
        noise = Noise(1, (1,), True, True).eager(on, torch.tensor([1, 2]), row, time)
    observed = torch.histc(noise.flatten(), bins=64, min=0.0, max=1.0)
    expected = noise.numel() / 64
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - 63) <= 6 * math.sqrt(2 * 63)
    flat = noise.flatten()
    neighbours = torch.corrcoef(torch.stack([flat[1:], flat[:-1]]))[0, 1].abs().item()
    assert neighbours <= ERRORS / math.sqrt(flat.numel())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_noise_is_uniform_in_every_dtype(dtype):
    noise = Noise(1, (20000,), False, False).eager(Eager(torch, {}, dtype), torch.tensor([1, 2])).double()
    assert 0 <= noise.min() <= noise.max() <= 1
    assert abs(noise.mean().item() - 0.5) <= ERRORS * math.sqrt(1 / 12 / 20000) + 2**-9


def test_every_transform_is_tried():
    tried = {type(transform) for transform in TRANSFORMS.values()}
    assert tried == {cls for cls in vars(transforms).values() if isinstance(cls, type) and issubclass(cls, Transform)} - {
        Transform
    }
