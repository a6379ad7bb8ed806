"""The parts of a tagger: numbers of tokens, batches, features, the network, counts of spans."""

import itertools
import random

import numpy as np
import pytest
import torch

from carousel.data.tagged import TaggedSentence, spans
from carousel.errors import ConfigError
from carousel.tasks import Tagger
from carousel.tasks.tag import TaggerOptions
from carousel.tasks.tag.batches import TagBatches
from carousel.tasks.tag.counts import SpanCounter
from carousel.tasks.tag.front import TokenFeatures
from carousel.tasks.tag.network import TagNetwork
from carousel.tasks.tag.tags import UNSEEN, TagIndex
from carousel.tasks.tag.words import MAX_CHARACTERS, WordIndex

LINES = ["Anna sees Rome", "Bert", "the 3 cats see Anna in Rome", "Rome 12"]
DATA = [
    TaggedSentence(tuple(line.split()), tuple("B-X" if word[0].isupper() else "O" for word in line.split())) for line in LINES
]
SMALL = {"hidden_size": 5, "embedding_size": 4, "character_size": 3, "character_hidden": 3, "affix_size": 2, "bigram_size": 3}


def build(dtype=torch.float64, **options):
    """A network with all kinds of features, and batches of DATA."""
    torch.manual_seed(3)
    chosen = TaggerOptions(**SMALL | {"dropout": 0.0, "affixes": 2, "shape": True, "bigrams": True} | options)
    words, tags = WordIndex.learn(DATA, [], chosen), TagIndex.learn(DATA, chosen)
    cell = Tagger(cell=chosen.cell).cell
    network = TagNetwork(cell, TokenFeatures(words, cell, chosen, chosen.embedding_size), tags, chosen).to(dtype)
    numbers = words.encode(DATA, training=True)
    return network, lambda size=4, **more: TagBatches(numbers, tags.encode(DATA), batch_size=size, **{"shuffle": False} | more)


def everything(network, batches):
    """Loss and gradient over all tokens."""
    network.zero_grad()
    total = 0.0
    for batch in batches:
        measured = network.measure(batch)
        (measured.loss * measured.items).backward()
        total += measured.loss.item() * measured.items
    return total, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_tokens_as_numbers():
    options = TaggerOptions(lowercase=True, zero_digits=True, affixes=2, shape=True, bigrams=True)
    index = WordIndex.learn(DATA, [], options)
    numbers = index.encode(DATA, training=True)
    tokens = [word for sentence in DATA for word in sentence.words]
    words = index.words.decode(numbers.words[numbers.forms])
    assert words == ["anna", "sees", "rome", "bert", "the", "0", "cats", "see", "anna", "in", "rome", "rome", "00"]
    assert [token for token, rare in zip(tokens, numbers.rare[numbers.forms], strict=True) if not rare] == [
        "Anna", "Rome", "Anna", "Rome", "Rome",
    ]  # fmt: skip
    assert not index.encode(DATA).rare.any()
    letters = ["".join(index.characters.decode(numbers.characters[a:b])) for a, b in itertools.pairwise(numbers.starts)]
    assert letters[0] == "Anna"  # characters see capitals
    assert letters[-1] == "00"
    shapes = index.affixes[-1].decode(numbers.affixes[:, -1])
    assert shapes[:2] == ["Xx", "x"]
    assert "Anna" in index
    assert "ANNA" in index
    assert "carla" not in index


def test_long_words_are_read_from_both_ends():
    options = TaggerOptions()
    long = TaggedSentence(("a" * 100 + "b" * 100,), ("O",))
    index = WordIndex.learn([long], [], options)
    found = "".join(index.characters.decode(index.encode([long]).characters))
    assert found == "a" * (MAX_CHARACTERS // 2) + "b" * (MAX_CHARACTERS // 2)


def test_tags_unseen_in_training():
    tags = TagIndex.learn(DATA, TaggerOptions())
    assert set(tags.labels.names) == {"O", "B-X", "I-X", "E-X", "S-X"}
    other = TaggedSentence(("a", "b", "c"), ("B-X", "I-X", "B-Y"))
    names = [tags.labels.names[n] if n != UNSEEN else None for n in tags.encode([other])]
    assert names == ["B-X", "E-X", None]


def test_bilou_comes_back_as_bilou(tmp_path):
    """The library's BIOES has other letters for the same."""
    rows = [("B-X", "L-X", "U-X"), ("O", "B-X", "L-X")]
    tags = TagIndex.learn([TaggedSentence(("a", "b", "c"), row) for row in rows], TaggerOptions())
    assert tags.answers == ("B-X", "I-X", "L-X", "O", "U-X")
    inside = [tags.inside(TaggedSentence(("a", "b", "c"), row)) for row in rows]
    assert inside == [["B-X", "E-X", "S-X"], ["O", "B-X", "E-X"]]
    assert [tuple(tags.outside(row)) for row in inside] == rows
    tags.write(tmp_path)
    assert TagIndex.recall(tmp_path) == tags


@pytest.mark.parametrize("scheme", ["bio", "iob1", "bioes", "bmes", "io"])
def test_spans_are_counted_as_they_are_read(scheme):
    letters = {"bio": "BI", "iob1": "BI", "bioes": "BIES", "bmes": "BMES", "io": "I"}[scheme]
    labels = ["O", *(f"{letter}-{kind}" for letter in letters for kind in "XY")]
    counter, draw = SpanCounter(labels, scheme), random.Random(7)
    for _ in range(60):
        lengths = np.array([draw.randrange(6) for _ in range(4)])
        truth, answers = (np.array([draw.randrange(len(labels)) for _ in range(lengths.sum())], np.int64) for _ in range(2))
        cuts = np.cumsum(lengths)[:-1]

        def read(numbers, cuts=cuts):
            rows = [[labels[n] for n in row] for row in np.split(numbers, cuts)]
            return {(at, *span) for at, row in enumerate(rows) for span in spans(row, scheme)}

        found, true = read(answers), read(truth)
        assert counter.count(answers, truth, lengths) == (len(found & true), len(found), len(true))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_shares_of_a_batch_are_the_batch():
    network, batches = build()
    (batch,) = batches()
    parts = [batch.part(rank, 3) for rank in range(3)]
    assert sum(part.token_count for part in parts) == batch.token_count
    network.eval()
    whole = network.measure(batch).loss * batch.token_count
    shares = sum(network.measure(part).loss * part.token_count for part in parts)
    torch.testing.assert_close(shares, whole)
    with pytest.raises(ConfigError, match="no such process"):
        batch.part(3, 3)


def test_an_epoch_has_every_sentence_once():
    _, batches = build()
    made = batches(2, shuffle=True, seed=5)
    orders = []
    for epoch in (0, 1, 0):
        made.set_epoch(epoch)
        orders.append([index for batch in made for index in batch.index.tolist()])
    assert sorted(orders[0]) == [0, 1, 2, 3]
    assert orders[0] == orders[2]
    made.set_epoch(0)
    made.skip(1)
    assert [index for batch in made for index in batch.index.tolist()] == orders[0][2:]


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"characters": "cnn", "output": "softmax"}, {"loss": "perceptron"}, {"loss": "margin", "num_layers": 2}],
    ids=["crf", "softmax", "perceptron", "margin"],
)
def test_the_loss_does_not_depend_on_the_batch(options):
    network, batches = build(**options)
    network.eval()
    whole, together = everything(network, batches(4))
    single, apart = everything(network, batches(1))
    assert whole == pytest.approx(single, rel=1e-9)
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("output", ["crf", "softmax"])
def test_what_stands_in_the_padding_is_never_read(output, monkeypatch):
    network, batches = build(output=output)
    network.eval()
    total, clean = everything(network, batches())
    forward = TokenFeatures.forward
    monkeypatch.setattr(
        TokenFeatures, "forward", lambda self, batch: forward(self, batch).masked_fill(~batch.mask[..., None], torch.nan)
    )
    poisoned, gradients = everything(network, batches())
    assert poisoned == total
    for name, gradient in clean.items():
        assert torch.isfinite(gradients[name]).all()
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-12)


def test_the_likelihood_is_that_of_a_sum_over_all_taggings():
    network, batches = build()
    network.eval()
    batch = next(iter(batches(1)))  # the longest sentence
    T, K = batch.token_count, network.output.out_features
    with torch.no_grad():
        scores = network.output(network.hidden(batch))[0]
        loss = network.measure(batch).loss * T
    crf = network.tags
    short = 4  # K^T paths: some steps are enough, the loss of which is asked for again
    part = scores[:short]
    tags = batch.tags[0, :short]

    def path(steps):
        start = crf.start_transitions[steps[0]] if not crf.start_mask[steps[0]] else torch.tensor(-torch.inf)
        total = start + crf.end_transitions[steps[-1]].masked_fill(crf.end_mask[steps[-1]], -torch.inf)
        for a, b in itertools.pairwise(steps):
            total = total + crf.transitions[a, b].masked_fill(crf.transition_mask[a, b], -torch.inf)
        return total + sum(part[t, k] for t, k in enumerate(steps))

    with torch.no_grad():
        everything_ = torch.stack([path(steps) for steps in itertools.product(range(K), repeat=short)]).logsumexp(0)
        expected = everything_ - path(tags.tolist())
        found = crf.loss(part[None], tags[None], reduction="sum")
        again = crf.loss(scores[None], batch.tags, reduction="sum")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, loss)


@pytest.mark.parametrize("kind", ["recurrent", "cnn"])
def test_a_word_means_the_same_beside_longer_ones(kind):
    network, _ = build(characters=kind)
    layer = network.front.characters
    letters = torch.randn(3, 7, 3, dtype=torch.float64)
    counts = torch.tensor([2, 7, 1])
    together = layer(letters.masked_fill(torch.arange(7)[None, :, None] >= counts[:, None, None], 0.0), counts)
    for row, count in enumerate(counts.tolist()):
        alone = layer(letters[row : row + 1, :count], counts[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_rare_words_teach_the_unknown_one():
    network, batches = build(rare_unknown=1.0)
    (batch,) = batches()
    network.train()
    words = network.front._words(batch)[batch.mask]
    rare = batch.rare[batch.forms][batch.mask]
    assert (words[rare] == 1).all()
    assert (words[~rare] > 1).all()
    _, gradients = everything(network, [batch])
    assert gradients["front.words.weight"][1].abs().sum() > 0
    network.eval()
    assert (network.front._words(batch)[batch.mask] > 1).all()


def test_words_and_pairs_are_dropped_in_training_only():
    network, batches = build(word_dropout=0.9, rare_unknown=0.0)
    (batch,) = batches()
    for training in (True, False):
        network.train(training)
        words, pairs = network.front._words(batch)[batch.mask], network.front._hidden(batch.pairs)[batch.mask]
        assert ((words == 1).double().mean() > 0.5) == training
        assert (pairs == batch.pairs[batch.mask]).all() == (not training)


def test_half_precision_sums_paths_in_full():
    network, batches = build(dtype=torch.float32)
    (batch,) = batches()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = network(batch)
    assert rough.unary.dtype is torch.float32
    exact = network(batch)
    torch.testing.assert_close(rough.log_partition(), exact.log_partition(), rtol=0.03, atol=0.05)


def test_dropout_is_the_same_at_all_steps_if_it_is_locked():
    network, _ = build(dropout=0.5, locked_dropout=True)
    network.train()
    dropped = network._drop(torch.ones(3, 6, 40, dtype=torch.float64))
    assert (dropped == dropped[:, :1]).all()
    assert 0 < (dropped == 0).double().mean() < 1
    assert not (dropped[0] == dropped[1]).all()


@pytest.mark.parametrize("cell", ["gru", "indrnn"])
def test_any_cell_reads_words_and_characters(cell):
    network, batches = build(cell=cell, dtype=torch.float32)
    total, gradients = everything(network, batches())
    assert np.isfinite(total)
    assert {name for name in gradients if name.startswith("front.characters")}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
