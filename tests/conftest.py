"""What all tests share: a fixed, printed seed that can be set from outside, one thread, and hypothesis's profile."""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("carousel", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("carousel")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=int(os.environ.get("CAROUSEL_TEST_SEED", "20260601")))
    parser.addoption("--update-golden", action="store_true", help="write the golden texts anew instead of comparing with them")


@pytest.fixture(autouse=True)
def seed(request):
    """Every test starts from the same seed, which a failing test prints."""
    value = request.config.getoption("--seed")
    print(f"seed={value}")  # noqa: T201 - shown with a failing test only
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    return value
