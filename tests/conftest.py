"""What all tests share: a fixed, printed seed that can be set from outside, one thread, hypothesis's profile, and a cache.

Compiled code is kept in a folder of the session's own: tests start from an empty cache, and never see the user's. The processes
of one session share it.
"""

import os
import random
import shutil
import tempfile

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


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # workers inherit the environment of the process that starts them
        os.environ["CAROUSEL_CACHE"] = config.code_cache = tempfile.mkdtemp(prefix="carousel-tests-")


def pytest_unconfigure(config):
    if hasattr(config, "code_cache"):
        shutil.rmtree(config.code_cache, ignore_errors=True)


@pytest.fixture(autouse=True)
def seed(request):
    """Every test starts from the same seed, which a failing test prints."""
    value = request.config.getoption("--seed")
    print(f"seed={value}")  # noqa: T201 - shown with a failing test only
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    return value
