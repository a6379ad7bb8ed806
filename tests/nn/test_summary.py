"""Summaries of sequences against NumPy, with NaN in the padding."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from carousel.errors import ConfigError
from carousel.nn import SUMMARIES, AttentionSummary, LastSummary, MaxSummary, MeanSummary
from cases import random_layer
from oracles import additive_attention

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # float64, sums in another order
LENGTHS = torch.tensor([3, 0, 5, 1])
BATCH, STEPS, HIDDEN = 4, 5, 3


def summary_of(kind, *, bidirectional=True, **options):
    layer = random_layer("elman", 2, HIDDEN, bidirectional=bidirectional)
    made = kind(layer, **options).double()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_()
    output = torch.randn(BATCH, STEPS, layer.output_size, dtype=torch.float64)
    return made, output


def padded_with(output, value):
    padding = torch.arange(output.shape[1])[None, :] >= LENGTHS[:, None]
    return output.masked_fill(padding[..., None], value)


def test_attention_agrees_with_its_transcription():
    summary, output = summary_of(AttentionSummary, attention_size=7)
    p = {"W": summary.project.weight, "b": summary.project.bias, "v": summary.context.weight[0]}
    s, a = additive_attention.run(output.numpy(), LENGTHS.numpy(), {name: t.detach().numpy() for name, t in p.items()})
    vector, weights = summary(padded_with(output, float("nan")), LENGTHS)
    np.testing.assert_allclose(vector.detach().numpy(), s, **CLOSE)
    np.testing.assert_allclose(weights.detach().numpy(), a, **CLOSE)
    torch.testing.assert_close(weights.sum(1), (LENGTHS > 0).double(), **CLOSE)


def test_mean_is_numpys_over_the_real_steps():
    summary, output = summary_of(MeanSummary)
    vector, weights = summary(padded_with(output, float("nan")), LENGTHS)
    expected = [output[b, :n].numpy().mean(0) if n else np.zeros(2 * HIDDEN) for b, n in enumerate(LENGTHS.tolist())]
    np.testing.assert_allclose(vector.numpy(), np.stack(expected), **CLOSE)
    assert weights is None


def test_max_is_numpys_over_the_real_steps():
    summary, output = summary_of(MaxSummary)
    vector, _ = summary(padded_with(output, float("nan")), LENGTHS)
    expected = [output[b, :n].numpy().max(0) if n else np.zeros(2 * HIDDEN) for b, n in enumerate(LENGTHS.tolist())]
    np.testing.assert_array_equal(vector.numpy(), np.stack(expected))


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
def test_last_is_where_each_direction_ends(bidirectional):
    summary, output = summary_of(LastSummary, bidirectional=bidirectional)
    vector, _ = summary(padded_with(output, 0.0), LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        ahead = output[b, n - 1, :HIDDEN] if n else torch.zeros(HIDDEN, dtype=torch.float64)
        back = output[b, 0, HIDDEN:] if n else torch.zeros(output.shape[2] - HIDDEN, dtype=torch.float64)
        assert torch.equal(vector[b], torch.cat([ahead, back]))


def test_last_is_the_final_state_of_the_last_layer():
    layer = random_layer("gru", 2, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    output, state = layer(torch.randn(BATCH, STEPS, 2, dtype=torch.float64), lengths=LENGTHS)
    vector, _ = LastSummary(layer)(output, LENGTHS)
    assert torch.equal(vector, torch.cat([state.h[2], state.h[3]], -1))


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_gradients_are_right_and_none_reaches_the_padding(name):
    summary, output = summary_of(SUMMARIES[name])
    padding = torch.arange(STEPS)[None, :] >= LENGTHS[:, None]

    def function(output):
        return summary(output.masked_fill(padding[..., None], 0.0), LENGTHS)[0]

    assert gradcheck(function, output.clone().requires_grad_(), atol=1e-7, rtol=1e-6)
    # `last` reads the first step of an empty sequence, which a layer leaves at zero; the others read no padding at all.
    filled = padded_with(output, 0.0 if name == "last" else float("nan")).requires_grad_()
    summary(filled, LENGTHS)[0].sum().backward()
    rows = LENGTHS > 0
    assert torch.isfinite(filled.grad).all()
    assert (filled.grad[padding & rows[:, None]] == 0).all()


@pytest.mark.parametrize("name", sorted(SUMMARIES))
@pytest.mark.parametrize(("batch", "steps"), [(3, 0), (0, 4), (0, 0)])
def test_empty_batches_and_empty_sequences(name, batch, steps):
    summary, output = summary_of(SUMMARIES[name])
    vector, weights = summary(output.new_zeros(batch, steps, output.shape[2]), torch.zeros(batch, dtype=torch.long))
    assert vector.shape == (batch, output.shape[2])
    assert (vector == 0).all()
    assert weights is None or weights.shape == (batch, steps)


def test_names_cover_all_summaries():
    assert set(SUMMARIES.values()) == {LastSummary, MeanSummary, MaxSummary, AttentionSummary}
    assert all(summary_of(kind)[0].output_size == 2 * HIDDEN for kind in SUMMARIES.values())


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_an_impossible_attention_size_is_named(size):
    layer = random_layer("elman", 2, HIDDEN)
    with pytest.raises(ConfigError, match=r"attention_size must be a whole number, 1 or more\.\n  got:"):
        AttentionSummary(layer, attention_size=size)
