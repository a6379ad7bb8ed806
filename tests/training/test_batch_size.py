import mmap
import time

import numpy as np
import pytest
import torch
from torch import nn

from carousel.errors import ConfigError, TrainingError
from carousel.training import batch_size, find_batch_size
from carousel.training.batch_size import available_memory, peak_memory

MIB = 2**20


def take(size, each=8 * MIB):
    """Memory from the system itself: what numpy asks for may be at hand in the process, and then nothing grows."""
    with mmap.mmap(-1, size * each) as block:
        for page in range(0, size * each, mmap.PAGESIZE):
            block[page] = 1


@pytest.mark.parametrize(("limit", "size"), [(9, 1), (30, 2), (100, 8), (1000, 64)])
def test_the_size_is_the_largest_power_of_two_within_the_limit(limit, size):
    assert find_batch_size(take, limit * MIB, largest=64) == size


def test_a_smallest_that_does_not_fit_is_an_error():
    with pytest.raises(TrainingError, match=r"a batch of 4 does not fit(.|\n)*MiB for a step(.|\n)*at most 10 MiB"):
        find_batch_size(take, 10 * MIB, smallest=4)


def test_what_would_be_far_too_large_is_not_tried():
    tried = []

    def remember(size):
        tried.append(size)
        take(size)

    assert find_batch_size(remember, 40 * MIB) == 4
    assert max(tried) <= 8


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_a_step_that_runs_out_of_memory_is_the_limit(error):
    def limited(size):
        if size > 16:
            raise error

    assert find_batch_size(limited, MIB) == 16


def test_another_error_of_a_step_comes_through():
    def broken(size):
        raise RuntimeError(f"shapes differ at {size}")

    with pytest.raises(RuntimeError, match="shapes differ"):
        find_batch_size(broken, MIB)


@pytest.mark.parametrize("options", [{"smallest": 0}, {"largest": 0}, {"limit_bytes": 0}])
def test_impossible_arguments_are_refused(options):
    with pytest.raises(ConfigError, match="must be positive"):
        find_batch_size(take, **options)


def test_the_size_found_for_a_network_keeps_its_training_step_within_the_limit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 2))

    def step(size):
        model(torch.randn(size, 64, 64)).square().mean().backward()

    # A row's activations and their gradients are 0.6 to 0.9 MiB.
    assert 32 <= find_batch_size(step, 64 * MIB) <= 128
    assert 128 <= find_batch_size(step, 256 * MIB) <= 512


@pytest.mark.parametrize("sampled", [False, True])
def test_the_peak_of_a_call_is_seen_though_it_is_let_go(monkeypatch, sampled):
    if sampled:
        monkeypatch.setattr(batch_size, "_reset_peak", lambda: False)

    def hold_for_a_moment():
        held = np.ones(8 * MIB)
        time.sleep(0.2)
        return held.sum()

    assert 60 * MIB < peak_memory(hold_for_a_moment) < 90 * MIB
    assert peak_memory(lambda: None) < 10 * MIB


def test_available_memory_is_no_more_than_the_machine_has():
    assert 10 * MIB < available_memory() < 2**45
