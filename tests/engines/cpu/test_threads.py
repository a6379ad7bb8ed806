"""Teams of threads: who gets which job, members that meet, and callers of every kind (nested, at once, forked, spawned)."""

import ctypes
import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from llvmlite import ir

from carousel.engines.cpu import launcher, threads
from carousel.engines.cpu.compile import assembly, compiled, llvm_text
from carousel.engines.cpu.target import CPUS, target
from carousel.engines.cpu.vectors import I64, POINTER
from carousel.errors import ConfigError

# Which team wrote: at args[member] the number of members, at args[64 + member] how often, at args[128...] the barrier's bytes,
# and at args[200] something but zero where two members stood on different barriers or on dirty ones.
NOTE = """
define void @kernel(ptr %args, i64 %member, i64 %members, ptr %barrier) {
  %at = getelementptr i64, ptr %args, i64 %member
  store i64 %members, ptr %at
  %times = getelementptr i64, ptr %at, i64 64
  %old = atomicrmw add ptr %times, i64 1 monotonic
  %sum_at = getelementptr i64, ptr %args, i64 128
  %place = ptrtoint ptr %barrier to i64
  %sum = atomicrmw add ptr %sum_at, i64 %place monotonic
  %dirt_at = getelementptr i64, ptr %args, i64 129
  %far_at = getelementptr i64, ptr %barrier, i64 15
  %near = load i64, ptr %barrier
  %far = load i64, ptr %far_at
  %both = or i64 %near, %far
  %dirt = atomicrmw or ptr %dirt_at, i64 %both monotonic
  ret void
}
"""


def neighbours():
    """Args: 0 rounds, 1 where numbers stand, 2 where errors are counted.

    In each round a member writes its number and, after a barrier, reads its neighbour's, which must be that of the same
    round. A second barrier stands before the next one is written.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64, I64, POINTER]), "kernel")
    args, member, members, barrier = function.args
    before, loop, end = (function.append_basic_block(name) for name in ("before", "loop", "end"))
    builder = ir.IRBuilder(before)

    def whole(number):
        return ir.Constant(I64, number)

    def at(base, index):
        return builder.gep(base, [index], source_etype=I64)

    rounds = builder.load(args, typ=I64)
    numbers, wrong = (builder.load(at(args, whole(i)), typ=POINTER) for i in (1, 2))
    mine = at(numbers, member)
    next_one = builder.urem(builder.add(member, whole(1)), members)
    theirs = at(numbers, next_one)
    builder.branch(loop)
    builder.position_at_end(loop)
    turn = builder.phi(I64)
    turn.add_incoming(whole(0), before)
    builder.store(builder.add(builder.mul(turn, whole(1000)), member), mine)
    threads.emit_barrier(builder, barrier, members)
    seen = builder.load(theirs, typ=I64)
    differs = builder.icmp_signed("!=", seen, builder.add(builder.mul(turn, whole(1000)), next_one))
    builder.atomic_rmw("add", wrong, builder.zext(differs, I64), "monotonic")
    threads.emit_barrier(builder, barrier, members)
    after = builder.add(turn, whole(1))
    turn.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", after, rounds), loop, end)
    builder.position_at_end(end)
    builder.ret_void()
    return module


def kernel(build, *key):
    return compiled(build, ["test of threads", *key, str(build())], target()).address("kernel")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Also of the processes started here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def note():
    return kernel(lambda: NOTE)


@pytest.fixture(scope="module")
def meet():
    return kernel(neighbours)


LAUNCHERS = {"torch's": threads._launcher, "own": threads._own_threads}


@pytest.fixture(params=LAUNCHERS.values(), ids=LAUNCHERS)
def how(request):
    return request.param()


class Notes:
    """Memory for `NOTE`: one row of words for each job."""

    def __init__(self, address, jobs):
        self.words = np.zeros((jobs, 256), dtype=np.int64)
        self.jobs = [(address, row.ctypes.data) for row in self.words]

    @property
    def teams(self):
        """Each job's team, as the members saw it: all the same number, each there once."""
        for row in self.words:
            team = row[0]
            assert row[:64].tolist() == [team] * team + [0] * (64 - team)
            assert row[64:128].tolist() == [1] * team + [0] * (64 - team)
            assert row[128] % team == 0, "members stood on different barriers"
            assert row[128] // team % 128 == 0
            assert row[129] == 0, "a barrier was not zeroed"
        return [int(row[0]) for row in self.words]

    @property
    def barriers(self):
        return [int(row[128] // row[0]) for row in self.words]


# --- teams ------------------------------------------------------------------------------------------------------------

SPLITS = [
    (1, 1, [1]),
    (1, 2, [2]),
    (1, 3, [3]),
    (1, 8, [8]),
    (2, 1, [1, 1]),
    (2, 2, [1, 1]),
    (2, 3, [2, 1]),
    (2, 4, [2, 2]),
    (3, 2, [1, 1, 1]),
    (3, 8, [3, 3, 2]),
    (5, 2, [1] * 5),
    (7, 3, [1] * 7),
    (40, 3, [1] * 40),
]


@pytest.mark.parametrize(("jobs", "members", "teams"), SPLITS)
def test_members_are_split_among_jobs(note, how, jobs, members, teams):
    notes = Notes(note, jobs)
    threads._run_together(notes.jobs, members, how)
    assert notes.teams == teams
    assert len(set(notes.barriers)) == jobs


@pytest.mark.parametrize(("jobs", "members", "teams"), SPLITS)
def test_run_splits_likewise(note, jobs, members, teams):
    notes = Notes(note, jobs)
    threads.run(notes.jobs, members)
    assert notes.teams == teams


def test_no_job_is_no_work():
    threads.run([], 1)
    threads.run([], 2)


@pytest.mark.parametrize("count", [0, -1])
def test_there_must_be_a_thread(note, count):
    with pytest.raises(ConfigError, match=f"got: +threads={count}"):
        threads.run(Notes(note, 1).jobs, count)


def test_torchs_runtime_launches_where_there_is_one():
    text = torch.__config__.parallel_info()
    if "ATen parallel backend: OpenMP" not in text or os.name == "nt":
        pytest.skip("this torch has no OpenMP that can be reached")
    assert threads.available() in ("libgomp", "libomp")


def test_no_second_runtime_is_loaded():
    if not sys.platform.startswith("linux"):
        pytest.skip("reads Linux's list of loaded files")
    script = """
import re, torch
def runtimes():
    return sorted(set(re.findall(r"\\S*lib(?:g|i)?omp\\S*", open("/proc/self/maps").read())))
before = runtimes()
from carousel.engines.cpu import threads
print(threads.available())
assert runtimes() == before, (before, runtimes())
"""
    assert run_python(script).strip() == threads.available()


def test_the_default_is_torchs_number():
    assert threads.default_threads() == torch.get_num_threads()


# --- the barrier ------------------------------------------------------------------------------------------------------


class Exchange:
    """Memory for `neighbours`."""

    def __init__(self, address, rounds):
        self.numbers = np.full(64, -1, dtype=np.int64)
        self.wrong = np.zeros(1, dtype=np.int64)
        self.args = np.array([rounds, self.numbers.ctypes.data, self.wrong.ctypes.data], dtype=np.int64)
        self.job = (address, self.args.ctypes.data)

    def check(self, members):
        last = (int(self.args[0]) - 1) * 1000
        assert self.numbers[: members + 1].tolist() == [last + i for i in range(members)] + [-1]
        assert self.wrong[0] == 0


@pytest.mark.parametrize(("members", "rounds"), [(1, 20_000), (2, 20_000), (3, 4_000), (8, 2_000)])
def test_members_meet(meet, how, members, rounds):
    exchange = Exchange(meet, rounds)
    threads._run_together([exchange.job], members, how)
    exchange.check(members)


def test_teams_meet_apart(meet, how):
    exchanges = [Exchange(meet, rounds) for rounds in (300, 2_000, 700)]
    threads._run_together([exchange.job for exchange in exchanges], 7, how)
    for exchange, members in zip(exchanges, (3, 2, 2), strict=True):
        exchange.check(members)


def test_the_exchange_sees_a_missing_barrier(monkeypatch):
    monkeypatch.setattr(threads, "emit_barrier", lambda *_: None)
    address = kernel(neighbours, "no barrier")
    exchange = Exchange(address, 200_000)
    threads._run_together([exchange.job], 2, threads._own_threads())
    assert exchange.wrong[0] > 0


def test_a_module_holds_the_barrier_once():
    text = str(neighbours())
    assert text.count('define internal void @"carousel.barrier"') == 1
    assert text.count('call void @"carousel.barrier"') == 2


HINTS = {True: "pause", False: "yield"}


@pytest.mark.parametrize("name", CPUS)
def test_the_barrier_can_be_written_for_every_cpu(name):
    cpu = target(name)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    threads.emit_barrier(builder, *function.args, cpu)
    builder.ret_void()
    listing = assembly(module, cpu)
    assert HINTS[cpu.x86] in listing
    assert "sched_yield" in listing


@pytest.mark.parametrize("triple", ["x86_64-pc-windows-msvc", "arm64-apple-macosx", "aarch64-unknown-linux-gnu"])
def test_the_launcher_can_be_written_for_other_systems(triple):
    name = "neoverse-n1" if triple.startswith("a") else "skylake"
    cpu = dataclasses.replace(target(name), triple=triple, native=False)
    text = llvm_text(launcher.source(cpu), cpu)
    assert ("CreateThread" in text) == ("windows" in triple)
    assert ("pthread_create" in text) != ("windows" in triple)
    for entry in ("alone", "gomp", "kmp", "own"):
        assert f"define void @{entry}(" in text


# --- callers ----------------------------------------------------------------------------------------------------------

# Runs another table of jobs from inside a team's member: args: 0 the launcher's entry, 1 + member the table.
NEST = """
define void @kernel(ptr %args, i64 %member, i64 %members, ptr %barrier) {
  %launch = load ptr, ptr %args
  %nth = add i64 %member, 1
  %at = getelementptr ptr, ptr %args, i64 %nth
  %table = load ptr, ptr %at
  call void %launch(ptr %table)
  ret void
}
"""


def test_inside_a_parallel_region_the_real_number_counts(note, meet):
    how = threads._launcher()
    inner, tables = [Notes(note, 3) for _ in range(2)], []
    exchange = [Exchange(meet, 50) for _ in range(2)]
    for notes, other in zip(inner, exchange, strict=True):
        table = threads._Table(4)
        jobs = [*notes.jobs, other.job]
        words = [*how.functions, 4, 0, table.words[launcher.BARRIERS], 4, *(word for job in jobs for word in job)]
        table.words[: len(words)] = words
        tables.append(table)
    entry = ctypes.cast(how.launch, ctypes.c_void_p).value
    args = np.array([entry, *(table.address for table in tables)], dtype=np.int64)
    threads._run_together([(kernel(lambda: NEST), args.ctypes.data)], 2, how)
    for notes, other in zip(inner, exchange, strict=True):
        assert notes.teams == [1, 1, 1]
        other.check(1)


def test_many_python_threads_may_run_at_once(meet, how):
    def one(_):
        exchange = Exchange(meet, 30)
        for members in (2, 1, 3, 2):
            exchange.numbers[:] = -1
            threads._run_together([exchange.job], members, how)
            exchange.check(members)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(12)))


def test_barriers_are_zeroed_before_each_run(note, how):
    table = threads._Table(threads._FEW)
    ctypes.memset(table.words[launcher.BARRIERS], 255, 128 * threads._FEW)
    threads._tables[:] = [table]
    notes = Notes(note, 2)
    threads._run_together(notes.jobs, 3, how)
    assert threads._tables == [table]
    assert notes.teams == [2, 1]  # which looks at the barriers as well


def test_a_table_goes_back_when_it_is_free(note):
    few, many = Notes(note, 2), Notes(note, 20)
    threads.run(few.jobs, 2)
    free = len(threads._tables)
    assert free > 0
    for _ in range(10):
        threads.run(few.jobs, 2)
        threads.run(many.jobs, 2)
    assert len(threads._tables) == free


def run_python(script):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}  # newer Pythons warn of every fork where there are threads
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_runs_again():
    script = f"""
import os, threading, numpy as np, torch
from carousel.engines.cpu import threads
from carousel.engines.cpu.compile import compiled
from carousel.engines.cpu.target import target

torch.set_num_threads(2)
address = compiled(lambda: {NOTE!r}, ["fork"], target()).address("kernel")

def use():
    words = np.zeros((1, 256), dtype=np.int64)
    threads.run([(address, words.ctypes.data)], 2)
    assert words[0, :3].tolist() == [2, 2, 0], words[0, :3]

def child(then=lambda: None):
    pid = os.fork()
    if pid == 0:
        failed = True
        try:
            use(); use(); then()
            assert threads.available() == "own threads"
            failed = False
        finally:
            os._exit(failed)
    assert os.waitpid(pid, 0)[1] == 0

use()
torch.randn(300, 300) @ torch.randn(300, 300)
child()                         # after the parent's pool was made
use()
child(child)                    # and a child's child
elsewhere = threading.Thread(target=child)
elsewhere.start(); elsewhere.join()
use()
assert threads.available() != "own threads" or not torch._C.has_openmp
print("done")
"""
    assert run_python(script) == "done\n"


def test_a_spawned_child_runs(tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text(f"""
import multiprocessing
import numpy as np
from carousel.engines.cpu import threads
from carousel.engines.cpu.compile import compiled
from carousel.engines.cpu.target import target

def use(_):
    words = np.zeros((1, 256), dtype=np.int64)
    threads.run([(compiled(lambda: {NOTE!r}, ["spawn"], target()).address("kernel"), words.ctypes.data)], 2)
    return words[0, :3].tolist(), threads.available()

if __name__ == "__main__":
    here = use(0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(use, [0, 1]) == [here, here]
    assert here[0] == [2, 2, 0]
    print("done")
""")
    assert run_python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')").endswith("done\n")


def test_the_runtime_may_give_fewer_than_asked():
    if threads.available() != "libgomp" or os.environ.get("OMP_THREAD_LIMIT"):
        pytest.skip("sets a limit that GNU's runtime reads when it starts")
    script = f"""
import os
os.environ["OMP_THREAD_LIMIT"] = "3"
import numpy as np
from carousel.engines.cpu import threads
from carousel.engines.cpu.compile import compiled
from carousel.engines.cpu.target import target
address = compiled(lambda: {NOTE!r}, ["limit"], target()).address("kernel")
words = np.zeros((2, 256), dtype=np.int64)
threads.run([(address, row.ctypes.data) for row in words], 8)
print(words[:, :4].tolist())
"""
    assert run_python(script).strip() == "[[2, 2, 0, 0], [1, 0, 0, 0]]"
