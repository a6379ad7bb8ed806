"""Starts the processes of a distributed run, and ends them.

The process that the user started begins as many workers as are missing with the same command line, each with the
environment variable ``CAROUSEL_WORKER``, and waits until all have prepared the model and the data. A worker writes no
file and says nothing; it ends when its run ends, so that what follows ``fit`` in a program happens once. It has a
session of its own, where Ctrl-C does not arrive, and ends itself when the first process is gone.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carousel.errors import CarouselError, ConfigError, TrainingError, explain
from carousel.training.interrupts import Interrupted

__all__ = ["Worker", "as_worker", "check_worker", "this_worker", "with_workers"]

VARIABLE = "CAROUSEL_WORKER"
PLAN = "plan.json"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 20.0
_STARTED: list[int] = []  # the processes (this one, if any) that have trained on several devices


@dataclass(frozen=True)
class Worker:
    """This process, if another one started it to take part in its run.

    Args:
        rank: its number, from 1.
        world: processes of the run.
        parent: the process that the user started.
        directory: where the processes of the run leave each other notes.
    """

    rank: int
    world: int
    parent: int
    directory: Path

    @functools.cached_property
    def plan(self) -> dict[str, Any]:
        """What the first process has settled: `run_dir`, and options that it has measured."""
        plan: dict[str, Any] = json.loads((self.directory / PLAN).read_text(encoding="utf-8"))
        return plan


@functools.cache
def this_worker() -> Worker | None:
    """This process as a worker, or None if the user started it."""
    text = os.environ.pop(VARIABLE, None)  # a process that it starts itself is no worker
    if text is None:
        return None
    rank, world, parent, directory = text.split(":", 3)
    worker = Worker(int(rank), int(world), int(parent), Path(directory))
    if os.getppid() != worker.parent:
        raise SystemExit(1)  # the run is over
    threading.Thread(target=_end_with, args=(worker.parent,), daemon=True, name="carousel-worker").start()
    return worker


@contextmanager
def with_workers(
    world: int, plan: Mapping[str, Any], *, backend: str, threads: int, check: Callable[[], None]
) -> Iterator[None]:
    """Start the workers of a run, connect with them, and see that they end.

    Args:
        world: processes of the run, this one included; with 1 nothing happens.
        plan: what the workers need to know, as JSON can hold it.
        backend: how the processes talk: gloo or nccl.
        threads: CPU threads of each process.
        check: called while waiting; may raise to give up.

    Raises:
        ConfigError: this program cannot be started a second time.
        TrainingError: a worker ended; the message says how.
    """
    if world == 1:
        yield
        return
    _check_program()
    _STARTED.append(os.getpid())
    with tempfile.TemporaryDirectory(prefix="carousel-run-") as name:
        directory = Path(name)
        (directory / PLAN).write_text(json.dumps(dict(plan)), encoding="utf-8")
        workers: list[subprocess.Popen[bytes]] = []
        patience = 0.0
        try:
            for rank in range(1, world):
                workers.append(_start(rank, world, directory))
            _wait_until_ready(workers, directory, check)
            with _connected(0, world, directory, backend, threads):
                yield
            patience = SECONDS_TO_END
        except (CarouselError, OSError):
            raise
        except Exception as error:
            failed = _first_failed(workers, seconds=2.0)
            if failed is None:
                raise
            raise _worker_failed(failed, workers, directory) from error
        finally:
            _end(workers, patience)


def check_worker(worker: Worker, world: int) -> None:
    """Make sure that a worker is at the training that it was started for.

    Args:
        worker: this process.
        world: processes of the run that it is at.

    Raises:
        ConfigError: it is at another one.
    """
    if world != worker.world:
        what = "a run on several devices must be the first of its program: its processes run the same program up to there."
        got = f"first a run on {world} device{'s' if world > 1 else ''}"
        raise ConfigError(explain(what, got=got, advice="put it into a program of its own"))


@contextmanager
def as_worker(worker: Worker, *, backend: str, threads: int) -> Iterator[None]:
    """Say that this worker is ready, connect, and end the process when the block ends."""
    (worker.directory / f"ready-{worker.rank}").touch()
    try:
        with _connected(worker.rank, worker.world, worker.directory, backend, threads):
            yield
    except Interrupted:  # the first process was, and all have left the loop at the same batch
        pass
    raise SystemExit(0)


def _check_program() -> None:
    what = None
    if hasattr(sys, "ps1") or sys.flags.interactive or "ipykernel" in sys.modules:
        what = "a run on several devices cannot be started from an interactive session."
    elif "LOCAL_RANK" in os.environ:
        what = "a run on several devices starts its processes itself."
    elif os.getpid() in _STARTED:
        what = "a program can train on several devices once: its processes run the same program up to there."
    if what is not None:
        advice = "start one program, from a file, without torchrun or the like; or train on one device"
        raise ConfigError(explain(what, advice=advice))


def _start(rank: int, world: int, directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, *sys.orig_argv[1:]]
    environment = os.environ | {VARIABLE: f"{rank}:{world}:{os.getpid()}:{directory}"}
    with open(directory / f"worker-{rank}.log", "wb") as log:
        return subprocess.Popen(  # noqa: S603 - the command that the user gave
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait_until_ready(workers: list[subprocess.Popen[bytes]], directory: Path, check: Callable[[], None]) -> None:
    while not all((directory / f"ready-{rank}").exists() for rank in range(1, len(workers) + 1)):
        for rank, worker in enumerate(workers, start=1):
            if worker.poll() is not None:
                raise _worker_failed(rank, workers, directory)
        check()
        time.sleep(0.02)


def _worker_failed(rank: int, workers: list[subprocess.Popen[bytes]], directory: Path) -> TrainingError:
    log = directory / f"worker-{rank}.log"
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    what = f"process {rank} of the run ended early (exit code {workers[rank - 1].poll()})."
    advice = "the program must reach the same fit in every process; last/ holds what was saved"
    return TrainingError(explain(what, got=said[-1] if said else "no message", advice=advice))


def _first_failed(workers: list[subprocess.Popen[bytes]], *, seconds: float) -> int | None:
    """The first worker that ended with an error, or does so within some seconds."""
    end = time.monotonic() + seconds
    while True:
        for rank, worker in enumerate(workers, start=1):
            if worker.poll():
                return rank
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def _end(workers: list[subprocess.Popen[bytes]], patience: float) -> None:
    end = time.monotonic() + patience
    for worker in workers:
        try:
            worker.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


@contextmanager
def _connected(rank: int, world: int, directory: Path, backend: str, threads: int) -> Iterator[None]:
    import torch

    # A file instead of a port: nobody else can take it.
    torch.distributed.init_process_group(backend, init_method=(directory / "meeting").as_uri(), rank=rank, world_size=world)
    # The training library would set a number of threads of its own.
    own = "OMP_NUM_THREADS" not in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        yield
    finally:
        if own:
            os.environ.pop("OMP_NUM_THREADS", None)
        torch.distributed.destroy_process_group()
