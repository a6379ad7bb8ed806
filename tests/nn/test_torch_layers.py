"""`carousel.nn.LSTM`, `GRU` and `RNN` stand in for torch's, line for line."""

import copy
import inspect
import itertools
import pickle
import typing
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import carousel.nn
from carousel.errors import CarouselError, ConfigError, DTypeError, ShapeError
from nn.torch_twins import LAYERS, SAME, assert_same_results, module_error_inputs, module_inputs, tensors, twins

T, B, I, H = 5, 3, 2, 4  # noqa: E741

every_layer = pytest.mark.parametrize("name", LAYERS)
# Every layer, and the forms that only one has.
FORMS = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
]
every_form = pytest.mark.parametrize(("name", "form"), FORMS, ids=["LSTM", "LSTM-proj", "GRU", "RNN", "RNN-relu"])


def states(layer, *lead, dtype=torch.float64, requires_grad=True):
    """Initial states that are not zero: (L·D, ...) for each."""
    copies = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    made = [torch.randn(copies, *lead, size, dtype=dtype, requires_grad=requires_grad) for size in sizes]
    return tuple(made) if len(made) > 1 else made[0]


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


# --- the same results -------------------------------------------------------------------------------------------------


# torch lists packed inputs for two of them; packed inputs for all three are further down.
ENTRIES = [*((name, {}) for name in LAYERS), *((name, {"with_packed_sequence": True}) for name in ("GRU", "RNN"))]


@pytest.mark.parametrize(("name", "kinds"), ENTRIES, ids=["LSTM", "GRU", "RNN", "GRU-packed", "RNN-packed"])
def test_torchs_own_module_inputs_give_the_same_outputs_and_gradients(name, kinds):
    entries = module_inputs(name, **kinds)
    assert len(entries) >= 16
    for entry in entries:
        made, given = entry.constructor_input, entry.forward_input
        theirs, ours = twins(name, *made.args, **made.kwargs)
        assert_same_results(theirs, ours, *given.args, **given.kwargs)


@every_form
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_batches_with_states_give_the_same_outputs_and_gradients(name, form, batch_first, bidirectional, bias):
    settings = {"num_layers": 2, "batch_first": batch_first, "bidirectional": bidirectional, "bias": bias}
    theirs, ours = twins(name, I, H, **settings, **form)
    x = inputs(*((B, T) if batch_first else (T, B)), I)
    assert_same_results(theirs, ours, x, states(ours, B))
    assert_same_results(theirs, ours, x)


@every_form
@pytest.mark.parametrize("enforce_sorted", [True, False], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_give_the_same_outputs_states_and_gradients(name, form, enforce_sorted, bidirectional):
    theirs, ours = twins(name, I, H, num_layers=2, bidirectional=bidirectional, **form)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    packed = pack_padded_sequence(torch.randn(5, 4, I, dtype=torch.float64), lengths, enforce_sorted=enforce_sorted)
    packed.data.requires_grad_()
    assert_same_results(theirs, ours, packed, states(ours, 4))
    assert_same_results(theirs, ours, packed)
    (a, _), (b, _) = theirs(packed), ours(packed)
    assert isinstance(b, PackedSequence)
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        kept = getattr(packed, field)
        assert getattr(b, field) is kept
        assert getattr(a, field) is kept
    for theirs_part, ours_part in zip(pad_packed_sequence(a), pad_packed_sequence(b), strict=True):
        torch.testing.assert_close(ours_part, theirs_part, **SAME)


@every_layer
def test_single_precision_agrees_within_its_rounding(name):
    theirs, ours = twins(name, 7, 16, num_layers=2, bidirectional=True, dtype=torch.float32)
    x = torch.randn(20, 4, 7)
    # Measured 2e-7 after 20 steps through two layers; float32 rounds at 6e-8.
    for a, b in zip(tensors(theirs(x)), tensors(ours(x)), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=2e-6)


@every_layer
def test_strided_inputs_are_read_and_left_as_they_are(name):
    theirs, ours = twins(name, I, H)
    x = torch.randn(I, B, 2 * T, dtype=torch.float64).permute(2, 1, 0)[::2]
    before = x.clone()
    assert not x.is_contiguous()
    hx = states(ours, B, requires_grad=False)
    hx_before = copy.deepcopy(hx)
    assert_same_results(theirs, ours, x, hx)
    assert torch.equal(x, before)
    assert all(map(torch.equal, tensors(hx), tensors(hx_before)))


@every_form
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_steps_give_an_empty_output_and_the_initial_state(name, form, bidirectional):
    ours = getattr(carousel.nn, name)(I, H, 2, bidirectional=bidirectional, dtype=torch.float64, **form)
    features = (ours.proj_size or H) * (1 + bidirectional)
    hx = states(ours, B)
    output, after = ours(torch.zeros(0, B, I, dtype=torch.float64), hx)
    assert output.shape == (0, B, features)
    assert all(map(torch.equal, tensors(after), tensors(hx)))
    _, zeros = ours(torch.zeros(0, B, I, dtype=torch.float64))
    assert all(part.count_nonzero() == 0 for part in tensors(zeros))
    output, after = ours(torch.zeros(0, I, dtype=torch.float64))
    assert output.shape == (0, features)
    assert [part.dim() for part in tensors(after)] == [2] * len(tensors(after))


@every_layer
def test_an_empty_batch_gives_what_torch_gives(name):
    theirs, ours = twins(name, I, H, num_layers=2)
    for a, b in zip(tensors(theirs(inputs(T, 0, I))), tensors(ours(inputs(T, 0, I))), strict=True):
        assert a.shape == b.shape


# --- dropout ----------------------------------------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_same_seed_drops_what_torch_drops(name, p):
    theirs, ours = twins(name, I, H, num_layers=3, bidirectional=True, dropout=p)
    x = inputs(T, B, I)
    assert_same_results(theirs, ours, x)
    lengths = [3, 1, 5]
    packed = pack_padded_sequence(x.detach(), lengths, enforce_sorted=False)
    assert_same_results(theirs, ours, packed)
    assert_same_results(theirs.eval(), ours.eval(), x)


def test_dropout_keeps_the_expectation():
    layer = carousel.nn.RNN(I, H, 2, "relu", dropout=0.3, dtype=torch.float64)
    with torch.no_grad():  # the second layer passes on what it gets, so the mean over masks must be what evaluation gives
        layer.weight_ih_l1.copy_(torch.eye(H))
        for rest in (layer.weight_hh_l1, layer.bias_ih_l1, layer.bias_hh_l1):
            rest.zero_()
        count = 20_000
        x = torch.rand(T, 1, I, dtype=torch.float64)
        dropped, whole = layer(x.expand(T, count, I))[0], layer.eval()(x)[0]
    # A kept value is v/(1-p), so its variance over masks is v^2 p/(1-p); five standard errors.
    error = (whole**2 * (0.3 / 0.7) / count).sqrt()
    assert whole.max() > 0.1
    assert ((dropped.mean(1, keepdim=True) - whole).abs() <= 5 * error + 1e-12).all()


@every_layer
def test_dropout_of_a_single_layer_warns_once_as_torch_does(name):
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer") as seen:
        getattr(carousel.nn, name)(I, H, dropout=0.5)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(carousel.nn, name)(I, H, 2, dropout=0.5)


# --- the same parameters ----------------------------------------------------------------------------------------------


def documented_signature(kind):
    """The signature torch documents; at run time some of its classes take *args and **kwargs."""
    stated = typing.get_overloads(kind.__init__)
    return inspect.signature(stated[0] if stated else kind.__init__)


@every_layer
def test_arguments_and_defaults_are_those_torch_documents(name):
    theirs, ours = (documented_signature(getattr(where, name)) for where in (nn, carousel.nn))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [(p.name, p.default) for p in theirs.parameters.values()]
    theirs, ours = (inspect.signature(getattr(where, name).forward) for where in (nn, carousel.nn))
    assert list(ours.parameters) == list(theirs.parameters)


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_layers", "bidirectional", "bias"), list(itertools.product([1, 3], [False, True], [False, True])))
def test_the_same_seed_starts_with_the_same_parameters(name, form, dtype, num_layers, bidirectional, bias):
    made = []
    for where in (nn, carousel.nn):
        torch.manual_seed(5)
        kind = getattr(where, name)
        layer = kind(I, H, num_layers, bias=bias, bidirectional=bidirectional, dtype=dtype, **form)
        made.append([*layer.named_parameters(), ("the next draw", torch.rand(3))])
    assert [found for found, _ in made[0]] == [found for found, _ in made[1]]
    for (_, theirs), (_, ours) in zip(*made, strict=True):
        assert theirs.dtype == ours.dtype
        assert torch.equal(theirs, ours)


@every_form
def test_state_dicts_go_both_ways(name, form):
    theirs, ours = twins(name, I, H, num_layers=2, bidirectional=True, **form)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.reset_parameters()
    assert not torch.equal(ours.weight_hh_l1_reverse, theirs.weight_hh_l1_reverse)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_same_results(theirs, ours, inputs(T, B, I), states(ours, B))


@every_form
def test_all_weights_and_flatten_parameters_are_as_in_torch(name, form):
    theirs, ours = twins(name, I, H, num_layers=2, bidirectional=True, bias=False, **form)
    before = ours(torch.ones(T, B, I, dtype=torch.float64))[0]
    assert ours.flatten_parameters() is None
    assert torch.equal(ours(torch.ones(T, B, I, dtype=torch.float64))[0], before)
    for theirs_group, ours_group in zip(theirs.all_weights, ours.all_weights, strict=True):
        assert all(map(torch.equal, theirs_group, ours_group))


REPRS = [
    {},
    {"num_layers": 2, "dropout": 0.5},
    {"num_layers": 3, "bias": False, "batch_first": True, "dropout": 1, "bidirectional": True},
]


@every_form
@pytest.mark.parametrize("settings", REPRS, ids=["plain", "some", "all"])
def test_the_repr_is_torchs(name, form, settings):
    theirs, ours = twins(name, I, H, **settings, **form)
    assert repr(ours) == repr(theirs)
    for attribute in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "proj_size"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


@every_layer
def test_a_deep_copy_is_independent(name):
    _, ours = twins(name, I, H, num_layers=2)
    twin = copy.deepcopy(ours)
    x = inputs(T, B, I)
    assert torch.equal(twin(x)[0], ours(x)[0])
    with torch.no_grad():
        twin.weight_ih_l0.add_(1.0)
    assert not torch.equal(twin(x)[0], ours(x)[0])
    sent = pickle.loads(pickle.dumps(ours))  # how a process starts another
    assert torch.equal(sent(x)[0], ours(x)[0])


@every_layer
def test_parameters_may_be_replaced_and_parametrised(name):
    theirs, ours = twins(name, I, H)
    for layer in (theirs, ours):
        with torch.no_grad():
            layer.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0 * 2)
        parametrizations.weight_norm(layer, "weight_ih_l0")
    x = inputs(T, B, I)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], **SAME)
    assert [found for found, _ in ours.named_parameters()] == [found for found, _ in theirs.named_parameters()]


@every_layer
def test_moving_to_another_dtype_and_device(name):
    _, ours = twins(name, I, H, num_layers=2, dtype=torch.float32)
    assert ours.double()(inputs(T, B, I))[0].dtype == torch.float64
    hollow = getattr(carousel.nn, name)(I, H, 2, bidirectional=True, device="meta")
    output, _ = hollow(torch.empty(T, B, I, device="meta"))
    assert output.device.type == "meta"
    assert output.shape == (T, B, 2 * H)
    assert nn.utils.skip_init(getattr(carousel.nn, name), I, H)(torch.zeros(T, B, I))[0].shape == (T, B, H)


@every_layer
def test_autocast_runs(name):
    _, ours = twins(name, I, H, num_layers=2, dtype=torch.float32)
    x = torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ours(x)[0]
    # bfloat16 has 8 bits: a few of its roundings of numbers below 1.
    torch.testing.assert_close(rounded.float(), ours(x)[0], rtol=0, atol=0.03)


def test_layers_of_one_cell_share_its_graph_and_say_their_engine():
    a, b = carousel.nn.LSTM(I, H), carousel.nn.LSTM(I, H)
    assert copy.deepcopy(a)._cell.cell is b._cell.cell
    assert a.engine.name == "cpu"
    assert a.engine.reason


# --- derivatives of any order, and torch.func -------------------------------------------------------------------------


@every_form
def test_second_derivatives_are_exact(name, form):
    smaller = {"proj_size": 2} if "proj_size" in form else form
    _, ours = twins(name, I, 3, num_layers=2, bidirectional=True, **smaller)
    names = [found for found, _ in ours.named_parameters()][:4]
    x, hx = torch.randn(2, 1, I, dtype=torch.float64, requires_grad=True), states(ours, 1)
    weights = tuple(ours.get_parameter(found).detach().clone().requires_grad_() for found in names)

    def run(x, *rest):
        given, start = rest[: len(names)], rest[len(names) :]
        hx = tuple(start) if len(start) > 1 else start[0]
        return tuple(tensors(functional_call(ours, dict(zip(names, given, strict=True)), (x, hx))))

    arguments = (x, *weights, *tensors(hx))
    assert torch.autograd.gradcheck(run, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, arguments, fast_mode=True)


@every_form
def test_functional_call_grad_and_jacrev_give_what_torch_gives(name, form):
    theirs, ours = twins(name, I, H, **form)
    other = {found: torch.randn_like(p) for found, p in theirs.named_parameters()}
    x = torch.randn(T, B, I, dtype=torch.float64)
    found = []
    for layer in (theirs, ours):

        def loss(parameters, layer=layer):
            return functional_call(layer, parameters, (x,))[0].pow(2).sum()

        def last(parameters, layer=layer):
            return functional_call(layer, parameters, (x,))[0][-1].sum(0)

        found.append([functional_call(layer, other, (x,))[0], *grad(loss)(other).values(), *jacrev(last)(other).values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, **SAME)


@every_form
def test_vmap_gives_what_a_loop_over_torchs_layer_gives(name, form):
    theirs, ours = twins(name, I, H, num_layers=2, bidirectional=True, **form)  # torch's own layers have no vmap
    xs = torch.randn(3, T, B, I, dtype=torch.float64)
    torch.testing.assert_close(vmap(lambda x: ours(x)[0])(xs), torch.stack([theirs(x)[0] for x in xs]), **SAME)

    def loss(layer):
        return lambda parameters, x: functional_call(layer, parameters, (x,))[0].pow(2).sum()

    parameters = dict(ours.named_parameters())
    each = vmap(grad(loss(ours)), in_dims=(None, 0))(parameters, xs)
    for i, x in enumerate(xs):
        expected = grad(loss(theirs))(dict(theirs.named_parameters()), x)
        for found, gradient in expected.items():
            torch.testing.assert_close(each[found][i], gradient, **SAME)
    # An ensemble: the weights have the extra axis.
    stacked = {found: torch.stack([p, 2 * p]) for found, p in parameters.items()}
    both = vmap(lambda weights: functional_call(ours, weights, (xs[0],))[0])(stacked)
    doubled = {found: 2 * p for found, p in theirs.named_parameters()}
    torch.testing.assert_close(both[1], functional_call(theirs, doubled, (xs[0],))[0], **SAME)


# --- errors -----------------------------------------------------------------------------------------------------------


@every_layer
def test_what_torch_refuses_to_build_is_refused_with_the_same_type(name):
    entries = [entry for entry in module_error_inputs(name) if entry.error_on.name == "CONSTRUCTION_ERROR"]
    assert len(entries) >= 12
    for entry in entries:
        made = entry.module_error_input.constructor_input
        with pytest.raises(entry.error_type) as raised:
            getattr(carousel.nn, name)(*made.args, **made.kwargs)
        assert isinstance(raised.value, CarouselError)


REFUSED = [
    ("LSTM", {"dropout": 1.5}, ConfigError, r"LSTM: dropout is a probability\.\n  got:      1\.5\n  expected: 0 to 1"),
    ("GRU", {"dropout": True}, ConfigError, "GRU: dropout is a probability"),
    ("RNN", {"dropout": "0.5"}, ConfigError, "RNN: dropout is a probability"),
    ("RNN", {"nonlinearity": "rleu"}, ConfigError, r"RNN: unknown nonlinearity 'rleu'\. Did you mean 'relu'"),
    ("LSTM", {"proj_size": -1}, ConfigError, r"LSTM: proj_size is too small\.\n  got:      -1"),
    ("LSTM", {"proj_size": H}, ConfigError, "LSTM: proj_size must be less than hidden_size"),
    ("LSTM", {"bidirectional": 1}, DTypeError, "LSTM: bidirectional must be True or False"),
    ("LSTM", {"num_layers": 1.0}, DTypeError, "LSTM: num_layers must be an int"),
    ("GRU", {"proj_size": 2}, TypeError, "proj_size"),
]


@pytest.mark.parametrize(("name", "settings", "error", "message"), REFUSED)
def test_settings_that_cannot_be_are_refused(name, settings, error, message):
    with pytest.raises(error, match=message):
        getattr(carousel.nn, name)(I, H, **settings)


def test_a_wrong_last_axis_says_what_to_do():
    with pytest.raises(ShapeError) as raised:
        carousel.nn.GRU(32, H)(torch.zeros(100, 8, 40))
    assert str(raised.value).splitlines() == [
        "GRU.forward: the last axis of the input is 40, but this layer was built with input_size=32.",
        "  got:      (100, 8, 40), float32, cpu",
        "  expected: (T, B, 32)",
        "  try:      build GRU(input_size=40, ...), or project the input first",
    ]


MISTAKES = [
    (lambda m: m(torch.zeros(I)), ShapeError, r"the input must have 2 or 3 axes\.\n.*\(2,\)\n.*\(T, 2\) or \(B, T, 2\)"),
    (lambda m: m(torch.zeros(B, T, I).double()), DTypeError, "the input and the parameters are of different dtypes"),
    (lambda m: m(torch.zeros(B, T, I).long()), DTypeError, "torch.int64"),
    (lambda m: m(torch.zeros(B, T, I), torch.zeros(2, B, H)), ShapeError, r"hx must be a tuple of 2 tensors\.\n.*a tensor"),
    (lambda m: m(torch.zeros(B, T, I), (torch.zeros(2, B, H),)), ShapeError, "a tuple of 1 tensors"),
    (lambda m: m(torch.zeros(B, T, I), 3), DTypeError, r"hx must be made of tensors\.\n.*int"),
    (
        lambda m: m(torch.zeros(B, T, I), (torch.zeros(2, B, H), torch.zeros(2, 7, H))),
        ShapeError,
        r"initial state c does not fit .*\n.*c \(2, 7, 4\)\n.*c \(L·D, B, 4\) = \(2, 3, 4\)",
    ),
    (lambda m: m(torch.zeros(B, T, I), (torch.zeros(B, 2, H),) * 2), ShapeError, "batch_first does not touch the state"),
    (lambda m: m(torch.zeros(T, I), (torch.zeros(2, 1, H),) * 2), ShapeError, "has a batch axis where the input has one"),
    (lambda m: m(torch.zeros(B, T, I), (torch.zeros(2, H),) * 2), ShapeError, "has a batch axis where the input has one"),
    (
        lambda m: m(torch.zeros(B, T, I), (torch.zeros(2, B, H), torch.zeros(2, B, H).double())),
        DTypeError,
        "the initial state c and the input are of different dtypes",
    ),
    (
        lambda m: m(pack_padded_sequence(torch.zeros(T, B, 7), [5, 5, 2])),
        ShapeError,
        "the last axis of the input is 7, but this layer was built with input_size=2",
    ),
    (
        lambda m: m(pack_padded_sequence(torch.zeros(T, B, I), [5, 5, 2]), (torch.zeros(2, 2, H),) * 2),
        ShapeError,
        r"h \(2, 2, 4\)\n.*= \(2, 3, 4\)",
    ),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_a_mistake_in_a_call_says_what_to_do(mistake, error, message):
    layer = carousel.nn.LSTM(I, H, 2, batch_first=True)
    with pytest.raises(error, match=f"(?s)LSTM.forward: .*{message}"):
        mistake(layer)
