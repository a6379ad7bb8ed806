"""Answers drawn at random, for the tests of evaluations and reports."""

import numpy as np

from carousel.tasks.evaluation import Evaluation


def answered(kind: str, N: int = 60, V: int = 4, seed: int = 0, skill: float = 1.5, **changes) -> Evaluation:
    """An evaluation of random items; the larger `skill`, the better the answers. The last label never occurs."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(N, V))
    if kind == "one":
        truth = random.integers(0, max(1, V - 1), size=N)
        logits = noise + skill * (truth[:, None] == np.arange(V))
        logits[:, -1] = -9.0
    elif kind == "several":
        truth = random.random((N, V)) < 0.4
        truth[:, -1] = False
        logits = noise + skill * np.where(truth, 1.0, -1.0)
        logits[:, -1] = -9.0
    else:
        truth = 3.0 + random.normal(size=(N, V)) * (1 + np.arange(V))
        logits = truth + noise / skill
    lengths = random.integers(1, 30, size=N)
    fields = {
        "kind": kind,
        "labels": tuple(f"label {number}" for number in range(V)),
        "truth": truth,
        "logits": logits,
        "lengths": lengths,
        "texts": tuple(" ".join(["word"] * length) for length in lengths),
        "attention": [[("word", 1 / length)] * length for length in lengths],
        "places": tuple(f"valid.tsv:{number + 2}" for number in range(N)),
    }
    return Evaluation(**(fields | changes))
