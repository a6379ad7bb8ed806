"""The fused softmax loss: torch's Linear and cross_entropy, without the tensor of all probabilities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from carousel.errors import CarouselError, ConfigError, DTypeError, ShapeError
from carousel.nn import SoftmaxLoss, linear_cross_entropy, losses

TOLERANCE = {torch.float32: {"rtol": 2e-4, "atol": 2e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-13}}


def theirs(hidden, weight, bias, target, **options):
    logits = functional.linear(hidden, weight, bias)
    loss = functional.cross_entropy(logits.view(-1, len(weight)), target.reshape(-1), **options)
    return loss.view(target.shape) if options.get("reduction") == "none" else loss


def case(shape, features, classes, bias, dtype, ignored, seed=0):
    generator = torch.Generator().manual_seed(seed)
    numbers = [(*shape, features), (classes, features), (classes,)]
    hidden, weight, b = (torch.randn(s, generator=generator, dtype=dtype) for s in numbers)
    target = torch.randint(classes, shape, generator=generator)
    if ignored:
        target.view(-1)[::3] = -100
    return hidden, weight, b if bias else None, target


def through(function, hidden, weight, bias, target, direction=None, **options):
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in (hidden, weight, bias)]
    loss = function(*leaves, target, **options)
    loss.backward(
        torch.randn(loss.shape, dtype=loss.dtype, generator=torch.Generator().manual_seed(1))
        if direction is None
        else direction
    )
    return [loss.detach(), *(t.grad for t in leaves if t is not None)]


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    features=st.integers(1, 20),
    classes=st.integers(1, 70),
    bias=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCE)),
    ignored=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_loss_and_gradients_are_torchs(shape, features, classes, bias, dtype, ignored, reduction, smoothing):
    given_ = case(shape, features, classes, bias, dtype, ignored)
    if reduction == "mean" and not (given_[3] >= 0).any():
        return
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for got, want in zip(through(linear_cross_entropy, *given_, **options), through(theirs, *given_, **options), strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_taken_in_parts_give_the_same(monkeypatch, reduction, smoothing):
    monkeypatch.setattr(losses, "_LEAST_ROWS", 4)
    monkeypatch.setattr(losses, "_ROOM", 1)
    given_ = case((7, 2), 9, 33, True, torch.float64, True)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for got, want in zip(through(linear_cross_entropy, *given_, **options), through(theirs, *given_, **options), strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE[torch.float64])


def test_large_logits_stay_finite():
    hidden, weight, bias, target = case((6,), 4, 50, True, torch.float32, False)
    for got, want in zip(
        through(linear_cross_entropy, hidden * 300, weight, bias, target),
        through(theirs, hidden * 300, weight, bias, target),
        strict=True,
    ):
        assert got.isfinite().all()
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_row_that_is_ignored_is_never_read():
    hidden, weight, bias, target = case((5,), 4, 20, True, torch.float64, False)
    target[2] = -100
    whole = through(linear_cross_entropy, hidden, weight, bias, target)
    hidden[2] = torch.nan
    loss, of_hidden, *_ = through(linear_cross_entropy, hidden, weight, bias, target)
    assert loss == whole[0]
    assert torch.equal(of_hidden, whole[1])
    assert not of_hidden[2].any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_first_and_second_derivatives_by_differences(reduction):
    hidden, weight, bias, target = case((4,), 3, 5, True, torch.float64, True)
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]

    def function(*args):
        return linear_cross_entropy(*args, target, reduction=reduction, label_smoothing=0.1)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    hidden, weight, bias, target = case((6,), 4, 20, True, torch.float64, False)
    weight.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, bias, target)
    loss.backward(retain_graph=True)
    first = weight.grad.clone()
    loss.backward(retain_graph=True)
    torch.testing.assert_close(weight.grad, 2 * first)
    loss.backward()
    torch.testing.assert_close(weight.grad, 3 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_bits_do_not_depend_on_the_run():
    given_ = case((40,), 16, 300, True, torch.float32, False)
    first, second = (through(linear_cross_entropy, *given_) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_weight_may_be_an_embeddings():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(30, 8)
    loss = SoftmaxLoss(8, 30, bias=False)
    loss.weight = embedding.weight
    words = torch.randint(30, (5, 3))
    loss(embedding(words).tanh(), words).backward()
    got, embedding.weight.grad = embedding.weight.grad, None
    theirs(embedding(words).tanh(), embedding.weight, None, words).backward()
    torch.testing.assert_close(got, embedding.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_module_gives_scores_and_probabilities():
    loss = SoftmaxLoss(8, 30, reduction="sum", ignore_index=3, label_smoothing=0.1)
    hidden, target = torch.randn(5, 2, 8), torch.randint(30, (5, 2))
    want = functional.cross_entropy(
        loss.logits(hidden).view(-1, 30), target.view(-1), reduction="sum", ignore_index=3, label_smoothing=0.1
    )
    torch.testing.assert_close(loss(hidden, target), want)
    torch.testing.assert_close(loss.log_prob(hidden).exp().sum(-1), torch.ones(5, 2))
    assert repr(loss) == "SoftmaxLoss(8, 30, bias=True, reduction='sum', ignore_index=3, label_smoothing=0.1)"
    assert loss.num_classes == 30


def test_what_torch_asks_for_besides_is_torchs():
    loss = SoftmaxLoss(4, 10)
    hidden, target = torch.randn(3, 4), torch.randint(10, (3,))
    want = theirs(hidden, loss.weight, loss.bias, target)
    got = torch.func.vmap(loss, in_dims=(0, 0))(hidden[:, None], target[:, None]).mean()
    torch.testing.assert_close(got, want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert abs(loss(hidden, target) - want) < 0.1
    assert loss(hidden[:0], target[:0]).isnan()
    assert loss(hidden, torch.full((3,), -100)).isnan()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"reduction": "avg"}, ConfigError, "reduction"),
        ({"label_smoothing": 1.5}, ConfigError, "label_smoothing"),
        ({"hidden": torch.zeros(3, 5)}, ShapeError, "hidden"),
        ({"bias": torch.zeros(9)}, ShapeError, "bias"),
        ({"target": torch.zeros(2, dtype=torch.long)}, ShapeError, "target"),
        ({"target": torch.zeros(3)}, DTypeError, "int64"),
        ({"target": torch.tensor([0, 10, 1])}, ShapeError, "10"),
        ({"target": torch.tensor([0, -1, 1])}, ShapeError, "-1"),
    ],
)
def test_mistakes_are_named(change, error, words):
    arguments = {
        "hidden": torch.zeros(3, 4),
        "weight": torch.zeros(10, 4),
        "bias": None,
        "target": torch.zeros(3, dtype=torch.long),
    }
    with pytest.raises(error, match=words) as caught:
        linear_cross_entropy(**{**arguments, **change})
    assert isinstance(caught.value, CarouselError)
