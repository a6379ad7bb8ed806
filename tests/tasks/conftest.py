"""Tiny data of two labels, and a model trained on them once."""

import random
from pathlib import Path

import pytest

from carousel.tasks import Classifier

QUICK = {
    "hidden_size": 8,
    "embedding_size": 8,
    "embedding_scale": 1.0,
    "epochs": 4,
    "lr": 0.02,
    "dropout": 0.1,
    "threads": 1,
    "progress": False,
    "device": "cpu",
}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs (text, label); one word of each text decides."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        label = draw.choice(["bad", "good"])
        words = [draw.choice(["the", "a", "film", "is", "plot"]) for _ in range(draw.randint(0, 4))]
        words.insert(draw.randint(0, len(words)), {"good": "moving", "bad": "dull"}[label])
        pairs.append((" ".join(words), label))
    return pairs


def write_tsv(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in pairs), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def quick() -> dict:
    return dict(QUICK)


@pytest.fixture(scope="session")
def train_pairs() -> list[tuple[str, str]]:
    return sentences(120, seed=1)


@pytest.fixture(scope="session")
def valid_pairs() -> list[tuple[str, str]]:
    return sentences(40, seed=2)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, train_pairs, valid_pairs) -> Path:
    """A finished run. Tests read it and never write to it."""
    folder = tmp_path_factory.mktemp("trained")
    train, valid = write_tsv(folder / "train.tsv", train_pairs), write_tsv(folder / "valid.tsv", valid_pairs)
    Classifier(**QUICK).fit(train, valid, out=folder / "run")
    return folder / "run"


@pytest.fixture
def model(run_dir) -> Classifier:
    return Classifier.load(run_dir)
