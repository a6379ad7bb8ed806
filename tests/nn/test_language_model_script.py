"""The classic script that trains a language model on words, with torch's layer and with ours: the same loss curve."""

import math
import random

import pytest
import torch
from torch import nn

import carousel.nn

STEPS, ROWS, WINDOW = 50, 8, 12
LEARNING_RATE, CLIP = 5.0, 0.25


def synthetic_text(characters=6000, seed=3):
    """Sentences of a small grammar, whose words agree over a distance, so that there is something to learn."""
    draw = random.Random(seed)
    subjects = {"the horse": "turns", "the horses": "turn", "a child": "waits", "some children": "wait", "the music": "plays"}
    places = ["in the park", "by the river", "at the fair", "under the old lamp"]
    sentences = []
    while sum(map(len, sentences)) < characters:
        subject, verb = draw.choice(list(subjects.items()))
        where = " ".join(draw.sample(places, draw.randint(0, 2)))
        sentences.append(f"{subject} {where} {verb} {draw.choice(['slowly', 'again', 'until night'])} . ".replace("  ", " "))
    return "".join(sentences)


class WordModel(nn.Module):
    """Embedding, recurrent layer, and a score for each word."""

    def __init__(self, layer, vocab_size, size, num_layers, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.recurrent = layer(size, size, num_layers, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(size, vocab_size)

    def forward(self, words, state):
        output, state = self.recurrent(self.dropout(self.embedding(words)), state)
        return self.scores(self.dropout(output)), state


def cut_off(state):
    """The state without its history: truncated backpropagation through time."""
    return state.detach() if isinstance(state, torch.Tensor) else tuple(map(cut_off, state))


def train(layer, dropout):
    """Losses of the first steps, stochastic gradient descent on windows that follow each other."""
    words = synthetic_text().split()
    index = {word: i for i, word in enumerate(sorted(set(words)))}
    ids = torch.tensor([index[word] for word in words])
    data = ids[: len(ids) // ROWS * ROWS].view(ROWS, -1).t().contiguous()  # (words, ROWS)

    torch.manual_seed(1111)
    model = WordModel(layer, len(index), 24, 2, dropout).train()
    losses, state, at = [], None, 0
    while len(losses) < STEPS:
        if at + WINDOW + 1 > len(data):
            state, at = None, 0
        state = None if state is None else cut_off(state)
        model.zero_grad()
        scores, state = model(data[at : at + WINDOW], state)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), data[at + 1 : at + WINDOW + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-LEARNING_RATE)
        losses.append(loss.item())
        at += WINDOW
    return torch.tensor(losses), len(index)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_the_loss_curve_is_torchs(name, dropout):
    theirs, vocab_size = train(getattr(nn, name), dropout)
    ours, _ = train(getattr(carousel.nn, name), dropout)
    assert ours[-10:].mean() < 0.7 * math.log(vocab_size) < ours[0]  # it learns: a curve that stands still shows nothing
    # float32; measured over all six, at most 1e-6.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
