"""Toy tasks, in seconds and with a wide margin: a layer must learn, not only run."""

import torch

from carousel.cells import resolve_cell
from carousel.nn import Recurrent


def adding(batch, steps):
    """Two numbers are marked; the answer is their sum. Guessing 1 leaves an error of 1/6."""
    x = torch.zeros(steps, batch, 2)
    x[..., 0] = torch.rand(steps, batch)
    first, second = torch.randint(0, steps // 2, (batch,)), torch.randint(steps // 2, steps, (batch,))
    rows = torch.arange(batch)
    x[first, rows, 1] = x[second, rows, 1] = 1.0
    return x, x[first, rows, 0] + x[second, rows, 0]


def parity(batch, steps):
    bits = torch.randint(0, 2, (steps, batch, 1)).float()
    return bits, (bits.sum(0)[:, 0] % 2)


def train(layer, readout, task, loss_of, *, steps, updates, batch=64, lr=1e-2):
    both = torch.nn.ModuleList([layer, readout])
    optimiser = torch.optim.Adam(both.parameters(), lr=lr)
    for _ in range(updates):
        x, target = task(batch, steps)
        loss = loss_of(readout(layer(x)[0][-1])[:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        x, target = task(1000, steps)
        return readout(layer(x)[0][-1])[:, 0], target


def test_an_lstm_solves_the_adding_problem():
    layer = Recurrent("lstm", 2, 16)
    answer, target = train(layer, torch.nn.Linear(16, 1), adding, torch.nn.functional.mse_loss, steps=20, updates=300)
    assert torch.nn.functional.mse_loss(answer, target) < 0.03  # a guess has 0.167


def test_irnn_solves_the_adding_problem_over_fifty_steps():
    layer = Recurrent(resolve_cell("irnn", {"input_std": 0.1}), 2, 32)
    answer, target = train(layer, torch.nn.Linear(32, 1), adding, torch.nn.functional.mse_loss, steps=50, updates=800, lr=2e-3)
    assert torch.nn.functional.mse_loss(answer, target) < 0.05  # a guess has 0.167


def test_an_elman_network_learns_parity():
    layer = Recurrent("elman", 1, 16)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    answer, target = train(layer, torch.nn.Linear(16, 1), parity, loss, steps=3, updates=600)
    assert ((answer > 0) == (target > 0.5)).float().mean() > 0.95  # a guess has 0.5
