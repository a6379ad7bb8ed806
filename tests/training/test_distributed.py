import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from carousel.errors import ConfigError
from carousel.training import Measured, TrainingConfig, process_count
from carousel.training.distributed import Borrowed, Ranks, Shares, measure_share
from training.toy import ToyBatch, ToyBatches, read_rows, toy_model, toy_train

HERE = Path(__file__)


@pytest.mark.parametrize(("devices", "count"), [(1, 1), (2, 2), ("3", 3), ([0, 1], 2), ("auto", 1), (-1, 1)])
def test_processes_are_counted_by_devices(devices, count):
    assert process_count(TrainingConfig(device="cpu", trainer={"devices": devices})) == count


class PartBatch(ToyBatch):
    def part(self, rank, world):
        return PartBatch(self.x[rank::world], self.y[rank::world])

    def to(self, device):
        return PartBatch(self.x.to(device), self.y.to(device))

    def __len__(self):
        return len(self.y)


class PartBatches(ToyBatches):
    """45 points in batches of 16, so that the last has fewer."""

    def __init__(self, size=16, seed=0):
        super().__init__(6, seed=seed)
        self.x, self.y, self.size = self.x[:45], self.y[:45], size

    def __len__(self):
        return -(-45 // self.size)

    def __iter__(self):
        for chosen in self.order.split(self.size):
            yield PartBatch(self.x[chosen], self.y[chosen])


def test_shares_of_a_batch_are_its_rows_and_a_lack_is_borrowed():
    batches = PartBatches(22)  # 22, 22 and 1
    shares = [Shares(batches, rank, 2) for rank in range(2)]
    for share in shares:
        share.set_epoch(0)
    for whole, first, second in zip(batches, *shares, strict=True):
        if len(whole) > 1:
            assert torch.equal(first.x, whole.x[::2])
            assert torch.equal(second.x, whole.x[1::2])
        else:
            assert torch.equal(first.x, whole.x)
            assert isinstance(second, Borrowed)
            assert torch.equal(second.rows.x, whole.x)
    shares[1].skip(2)
    assert len(list(shares[1])) == 1
    assert len(list(shares[1])) == 3


def test_borrowed_rows_count_for_nothing():
    def measure(batch):
        return Measured(batch.x.sum(), items=len(batch), tokens=7, sums={"accuracy": 1.0})

    measured = measure_share(measure, Borrowed(PartBatch(torch.ones(1, 6), torch.ones(1))))
    assert (measured.items, measured.tokens, measured.sums, measured.loss.item()) == (0, 0, {"accuracy": 0.0}, 6.0)


def test_batches_that_cannot_be_divided_are_refused():
    batches = ToyBatches()
    batches.set_epoch(0)
    with pytest.raises(ConfigError, match=r"cannot be divided among processes(.|\n)*part\(rank, world\)"):
        next(iter(Shares(batches, 0, 2)))


def test_one_process_has_nothing_to_say():
    ranks = Ranks()
    measured = Measured(torch.tensor(2.0), items=3, tokens=4)
    assert ranks.total(measured) is measured
    assert ranks.agree(True, False) == (True, False)
    before = torch.random.get_rng_state()
    ranks.seed_step(1, 2, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


# One program for all: what it does is chosen by its arguments.
PROGRAM = """
import json, os, signal, sys, torch
from training.test_distributed import PartBatches
from training.toy import toy_model, toy_train

run_dir, options = sys.argv[1], json.loads(sys.argv[2])
size, fault = options.pop("size"), options.pop("fault", None)

def meddle(model, loss):
    if fault and model.training and model.measured == 4:
        rank = torch.distributed.get_rank()
        if fault == "raise" and rank == 0:
            raise ValueError("mine")
        if fault == "die" and rank == 1:
            os._exit(3)
        if fault == "nan" and rank == 1:
            return loss * float("nan")
        if fault == "interrupt" and rank == 0:
            os.kill(os.getpid(), signal.SIGINT)
        if fault == "sleep":
            print("sleeping", flush=True)
            import time; time.sleep(100)
    return loss

model = toy_model(on_measure=meddle)
model.net[2].p = 0.0
result = toy_train(run_dir, model, batches=PartBatches(size), valid=PartBatches(size, seed=1), **options)
print(json.dumps({"interrupted": result.interrupted, "history": result.history}))
"""
TWO = {"devices": 2, "strategy": "ddp"}


def program(run_dir, *, check=True, **options):
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(run_dir), json.dumps(options)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return done


def test_two_processes_give_what_one_gives_with_the_double_batch_and_resume_bit_for_bit(tmp_path):
    # 22, 22 and 1 points, so that one process has none of the last batch; the first two make one step
    options = {"epochs": 3, "optimizer": "sgd", "lr": 0.3, "momentum": 0.9, "patience": None, "accumulate": 2}
    model = toy_model()
    model.net[2].p = 0.0
    one = toy_train(tmp_path / "one", model, batches=PartBatches(22), valid=PartBatches(22, seed=1), **options)
    options |= {"size": 22, "trainer": TWO}
    two = program(tmp_path / "two", **options)
    ours, theirs = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("two", "one"))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    for mine, other in zip(two["history"], one.history, strict=True):
        for name in other:
            if name not in ("seconds", "tokens_per_second"):
                assert mine[name] == pytest.approx(other[name], rel=1e-5), name
    assert len(read_rows(tmp_path / "two")) == 3

    stopped = program(tmp_path / "parts", fault="interrupt", **options)
    assert (stopped["interrupted"], len(stopped["history"])) == (True, 1)
    program(tmp_path / "parts", resume=True, **options)
    parts = load_file(tmp_path / "parts" / "last" / "model.safetensors")
    assert all(torch.equal(ours[name], parts[name]) for name in ours)


def test_each_process_draws_other_numbers_that_depend_on_the_batch_alone():
    draws = {}
    for rank, epoch, batch in itertools.product(range(2), range(2), range(2)):
        torch.manual_seed(rank + epoch + batch)
        Ranks(rank, 2).seed_step(5, epoch, batch)
        draws[rank, epoch, batch] = torch.rand(1).item(), np.random.rand(), random.random()
    assert len(set(draws.values())) == 8
    Ranks(1, 2).seed_step(5, 0, 1)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == draws[1, 0, 1]


NIGHTLY = pytest.mark.skipif(not os.environ.get("CAROUSEL_TEST_NIGHTLY"), reason="takes long; CAROUSEL_TEST_NIGHTLY runs it")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("raise", "ValueError: mine", id="in the first process"),
        pytest.param(
            "die", r"TrainingError: process 1 of the run ended early \(exit code 3\)", id="in a worker", marks=NIGHTLY
        ),
        pytest.param("nan", "the training loss is not a finite number in epoch 2, batch 1", id="in all", marks=NIGHTLY),
    ],
)
def test_whatever_fails_all_processes_end_soon_and_say_why_once(tmp_path, fault, words):
    began = time.monotonic()
    done = program(tmp_path / "run", check=False, size=22, epochs=3, trainer=TWO, fault=fault)
    assert time.monotonic() - began < 60
    assert done.returncode == 1
    assert len(re.findall(words, done.stderr)) == 1, done.stderr
    assert len(read_rows(tmp_path / "run")) == 1


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="reads Linux's /proc")
def test_workers_end_when_the_first_process_is_killed(tmp_path):
    options = {"size": 22, "epochs": 3, "trainer": TWO, "fault": "sleep"}
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline().strip() == "sleeping", process.stderr.read()
        workers = children(process.pid)
        assert len(workers) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 10
        while any(map(alive, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(alive, workers))
