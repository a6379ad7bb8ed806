"""A small model and its batches: it learns in a few steps, and draws from torch's generator at each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from carousel.training import Measured, TrainingConfig, TrainingResult, train


@dataclass
class ToyBatch:
    x: Tensor
    y: Tensor

    def to(self, device):
        return ToyBatch(self.x.to(device), self.y.to(device))


class ToyBatches:
    """`count` batches of 8 points; the label says on which side of a line a point lies."""

    def __init__(self, count=6, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(8 * count, 6, generator=generator)
        self.y = (self.x[:, 0] + 0.5 * self.x[:, 1] > 0).long()
        self.count = count
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)
        self.order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(epoch))

    def __len__(self):
        return self.count

    def __iter__(self):
        for chosen in self.order.split(8):
            yield ToyBatch(self.x[chosen], self.y[chosen])


class ToyModel(nn.Module):
    """A network with dropout; `on_measure(model)` lets a test meddle."""

    def __init__(self, hidden=8, on_measure=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Dropout(0.3), nn.Linear(hidden, 2))
        self.on_measure = on_measure
        self.measured = 0

    def measure(self, batch):
        if self.training:
            self.measured += 1
        scores = self.net(batch.x)
        loss = nn.functional.cross_entropy(scores, batch.y)
        if self.on_measure is not None:
            loss = self.on_measure(self, loss)
        return Measured(
            loss, items=len(batch.y), tokens=batch.x.numel(), sums={"accuracy": (scores.argmax(-1) == batch.y).sum()}
        )


def toy_model(**options):
    torch.manual_seed(0)
    return ToyModel(**options)


def toy_train(
    run_dir, model=None, *, batches=None, valid="own", monitor="accuracy", mode="max", resume=False, **config
) -> TrainingResult:
    """Train a toy model; `config` are options of TrainingConfig."""
    options = {"epochs": 2, "lr": 0.01, "threads": 1, "device": "cpu", "progress": False} | config
    return train(
        toy_model() if model is None else model,
        ToyBatches() if batches is None else batches,
        ToyBatches(3, seed=1) if valid == "own" else valid,
        TrainingConfig(**options),
        run_dir,
        monitor=monitor,
        mode=mode,
        resume=resume,
    )


def read_rows(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
