"""The compiled engine over a long life: memory stays flat, and threads, forks and processes do not disturb one another.

``CAROUSEL_TEST_NIGHTLY`` makes the test of memory five times as long.
"""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cases import random_given
from compiled import assert_same_bits, outcome, twins

NIGHTLY = bool(os.environ.get("CAROUSEL_TEST_NIGHTLY"))
ROOT = Path(__file__).parents[3]
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
#: Of Python, about forks where there are threads; that is what is tested.
ABOUT_FORKS = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def a_run(name="lstm", *, steps=5, batch=3, **options):
    """A layer, and everything that a call gives."""
    layer, _ = twins(name, 3, 8, **options)
    given = random_given(layer, steps, batch)
    return layer, given, outcome(layer, given)


def resident():
    """Bytes of memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@LINUX
def test_memory_is_flat():
    """Batches of one shape and of many, with and without gradients."""
    layer, _ = twins("lstm", 3, 64, dtype=torch.float32)
    calls = 10_000 if NIGHTLY else 2_000

    def work(count):
        for i in range(count):
            ragged = i % 2 == 0
            steps = 3 + i % 7 if ragged else 5
            lengths = torch.randint(0, steps + 1, (4,)) if ragged else None
            with torch.set_grad_enabled(i % 4 < 3):
                output, _ = layer(torch.randn(steps, 4, 3), None, lengths)
            if output.requires_grad:
                output.sum().backward()

    def alive():
        """Python's objects, and tensors among them."""
        gc.collect()
        objects = gc.get_objects()
        return len(objects), sum(issubclass(type(each), torch.Tensor) for each in objects)

    work(calls // 4)  # caches fill, the allocator finds its size
    before, memory = alive(), resident()
    work(calls)
    after = alive()
    # One object left behind by each call would be `calls` of them; recipes for other lengths may have other parts.
    assert after[0] - before[0] < calls // 2
    assert after[1] - before[1] < calls // 20
    assert resident() - memory < 8 << 20


def test_an_error_on_the_way_hands_memory_back():
    layer, given, expected = a_run()
    for _ in range(3):
        output, _ = layer(given.inputs["x"], given.state)
        output.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()
        assert_same_bits(outcome(layer, given), expected)


def test_eight_threads_at_once():
    jobs = [a_run(name, steps=steps) for name in ("lstm", "gru", "mlstm", "indrnn") for steps in (3, 9)]
    start = threading.Barrier(len(jobs))

    def work(job):
        layer, given, expected = job
        torch.set_num_threads(2)
        start.wait(60)
        for _ in range(10):
            assert_same_bits(outcome(layer, given), expected)

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            list(pool.map(work, jobs, timeout=120))
    finally:
        torch.set_num_threads(before)


def test_one_layer_in_several_threads():
    layer, given, _ = a_run()
    with torch.no_grad():
        expected = layer(given.inputs["x"], given.state)[0]

    def work(_):
        with torch.no_grad():
            return all(torch.equal(layer(given.inputs["x"], given.state)[0], expected) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8), timeout=60))


def in_child(work, timeout=60):
    """Fork, work, and say whether it went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    waited = threading.Event()
    timer = threading.Timer(timeout, lambda: None if waited.is_set() else os.kill(pid, 9))
    timer.start()
    _, status = os.waitpid(pid, 0)
    waited.set()
    timer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


@POSIX
@ABOUT_FORKS
@pytest.mark.parametrize("count", [1, 2])
def test_after_a_fork(count):
    """What the parent has run, and what is compiled in the child only; also while the parent has used threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        layer, given, expected = a_run()

        def work():
            torch.set_num_threads(count)
            assert_same_bits(outcome(layer, given), expected)
            a_run("minlstm", bidirectional=True)

        in_child(work)
        assert_same_bits(outcome(layer, given), expected)
    finally:
        torch.set_num_threads(before)


@POSIX
@ABOUT_FORKS
def test_in_forked_workers():
    layer, given, expected = a_run()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = [pool.apply_async(_forward_only, (layer, given)) for _ in range(4)]
        for answer in answers:
            assert torch.equal(torch.tensor(answer.get(60), dtype=torch.float64), expected["output"])


def _forward_only(layer, given):
    """Lists: tensors would go through shared memory."""
    with torch.no_grad():
        return layer(given.inputs["x"], given.state)[0].tolist()


ONE_PROCESS = """
import torch
from carousel.nn import Recurrent
torch.set_num_threads(1)
torch.manual_seed(0)
layer = Recurrent("lstm", 3, 8, dtype=torch.float64, engine="cpu")
x = torch.randn(5, 2, 3, dtype=torch.float64)
output, _ = layer(x)
output.sum().backward()
print(output.sum().item().hex(), sum(p.grad.sum() for p in layer.parameters()).item().hex())
"""


def test_two_processes_with_an_empty_cache(tmp_path):
    environment = {**os.environ, "CAROUSEL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", ONE_PROCESS], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".code"]  # none was left unfinished
