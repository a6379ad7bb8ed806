"""The number of threads changes no bit, and fits leave no memory behind."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from carousel.engines import engines
from carousel.tasks import Classifier

COMPILED = any(info.name == "cpu" and info.usable for info in engines())


def texts(count, seed):
    chance = random.Random(seed)
    return [
        (" ".join([f"key{label}", *(f"w{chance.randrange(300)}" for _ in range(chance.randrange(1, 23)))]), f"c{label}")
        for label in (chance.randrange(3) for _ in range(count))
    ]


def fitted(threads, **options):
    before = torch.get_num_threads()
    common = {"epochs": 2, "batch_size": 16, "seed": 3, "patience": None, "progress": False}
    model = Classifier(**common, threads=threads, **options).fit(texts(120, 0), texts(30, 1))
    assert torch.get_num_threads() == before
    clocks = ("seconds", "tokens_per_second")
    return model.network_.state_dict(), [
        {name: row[name] for name in row if name not in clocks} for row in model.result_.history
    ]


@pytest.mark.skipif(not COMPILED, reason="needs the compiled engine")
@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "hidden_size": 72, "embedding_size": 50},
        {"cell": "gru", "hidden_size": 24, "embedding_size": 17, "summary": "last", "clip_norm": 0.1},
        {"cell": "lstm", "hidden_size": 96, "embedding_size": 80, "matmul_precision": "medium"},
        {"cell": "lstm", "hidden_size": 96, "embedding_size": 80, "matmul_precision": "low"},
    ],
    ids=["lstm with attention", "gru", "rounded products", "rounded loops"],
)
def test_one_and_two_threads_train_the_same_bits(options):
    (one, rows), (two, rows_of_two) = (fitted(threads, **options) for threads in (1, 2))
    assert rows == rows_of_two
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_torch_keeps_its_threads_where_no_layer_of_ours_is_compiled(tmp_path):
    from training.toy import toy_model, toy_train

    seen = []
    toy_train(tmp_path, toy_model(on_measure=lambda _, loss: seen.append(torch.get_num_threads()) or loss), threads=2, epochs=1)
    assert set(seen) == {2}


SCRIPT = """
import gc, os, sys
from carousel.tasks import Classifier
from training.test_threads_and_memory import texts

def fit():
    options = {"epochs": 1, "hidden_size": 32, "embedding_size": 200, "batch_size": 16, "threads": 1, "progress": False}
    Classifier(**options).fit(texts(48, 0), texts(16, 1))
    gc.collect()  # the training library's objects hold each other: what counts is what stays when they are gone

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

for _ in range(8):
    fit()
start = resident()
for _ in range(int(sys.argv[1])):
    fit()
print(resident() - start)
"""
FITS = 100 if os.environ.get("CAROUSEL_TEST_NIGHTLY") else 24


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's account of memory")
def test_many_fits_leave_memory_flat():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}  # a process of its own: other tests grow
    command = [sys.executable, "-c", SCRIPT, str(FITS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    # MiB. A model with its moments is 1 here, and the plans of its layers half of one: either would show if it stayed.
    assert float(done.stdout) < 0.05 * FITS + 3
