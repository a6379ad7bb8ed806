"""Trains, is killed by SIGKILL at many points, goes on in a fresh process, and compares with a run that nobody touched.

Run as a program: ``python -m training.killed DIRECTORY POINTS`` prints one JSON object per point. Every part of a run is
a process of its own, forked from one that has imported everything and trained nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import warnings
from pathlib import Path

import torch

from carousel.training import load_checkpoint
from faults import intercept
from training.toy import ToyBatches, read_rows, toy_model, toy_train

CLOCKS = ("seconds", "tokens_per_second")
CONFIGS = {
    "plain": {"epochs": 3, "patience": None, "save_steps": 2, "save_minutes": None},
    "rich": {
        "epochs": 3,
        "patience": None,
        "save_steps": 1,
        "save_minutes": None,
        "schedule": "cosine",
        "average": "ema",
        "accumulate": 2,
        "optimizer": "adamw",
    },
}


class Reaper:
    """Kills this process at a point: before operation `number` of ``carousel.files``, or in the middle of a batch."""

    def __init__(self, kind=None, number=-1):
        self.kind = kind
        self.number = number
        self.operations = []
        self.counts = {"train": 0, "valid": 0}

    def operation(self, name):
        self.operations.append(name)
        if self.kind == "operation" and len(self.operations) - 1 == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

    def measure(self, model, loss):
        kind = "train" if model.training else "valid"
        self.counts[kind] += 1
        if self.kind == kind and self.counts[kind] - 1 == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.rand(3)  # validation draws too: a resumed run must not notice
        return loss


def in_a_process(action):
    """Run `action` in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def part_of_a_run(directory, config, reaper, resume):
    def action():
        import carousel.training.keeper

        carousel.training.keeper.draw_learning_curve = lambda *_, **__: None
        warnings.simplefilter("error")
        intercept(reaper.operation)
        toy_train(directory, toy_model(on_measure=reaper.measure), batches=ToyBatches(5), resume=resume, **config)
        (directory / "operations.json").write_text(json.dumps(reaper.operations))

    return in_a_process(action)


def summary(directory):
    """Everything about a finished run that must not depend on when it was killed."""
    rows = [{name: value for name, value in row.items() if name not in CLOCKS} for row in read_rows(directory)]
    found = {"rows": rows}
    for name in ("last", "best"):
        checkpoint = load_checkpoint(directory / name)
        run = checkpoint["callbacks"]["carousel"]
        run["run"]["seconds"] = 0.0
        run["run"]["history"] = len(run["run"]["history"])
        found[name] = checkpoint
    return found


def same(left, right):
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def choose_points(operations, count):
    """Each kind of operation three times, batches of training and of validation, and chance for the rest."""
    chance = random.Random(1)
    first = operations.index("rename") + 2  # the checkpoint of the very beginning is in its place
    places = {}
    for place, name in enumerate(operations):
        if place >= first:
            places.setdefault(name, []).append(place)
    points = [("train", number) for number in (0, 2, 6, 7, 14)] + [("valid", number) for number in (0, 1, 4, 8)]
    for name in sorted(places):
        points += [("operation", place) for place in chance.sample(places[name], min(2, len(places[name])))]
    while len(points) < count:
        point = ("operation", chance.randrange(first, len(operations)))
        points += [point] if point not in points else []
    return points[:count]


def main(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    whole, operations = {}, {}
    for name, config in CONFIGS.items():
        assert part_of_a_run(folder / name, config, Reaper(), resume=False) == 0
        operations[name] = json.loads((folder / name / "operations.json").read_text())
        whole[name] = summary(folder / name)
    names = list(CONFIGS)
    for number in range(count):
        name = names[number % len(names)]
        kind, place = choose_points(operations[name], count)[number]
        directory = folder / f"{number}-{kind}-{place}"
        killed = part_of_a_run(directory, CONFIGS[name], Reaper(kind, place), resume=False)
        resumed = part_of_a_run(directory, CONFIGS[name], Reaper(), resume=True)
        print(  # noqa: T201 - what this program is for
            json.dumps(
                {
                    "config": name,
                    "point": [kind, place],
                    "operation": operations[name][place] if kind == "operation" else None,
                    "killed": killed == -signal.SIGKILL,
                    "resumed": resumed == 0,
                    "same": resumed == 0 and same(summary(directory), whole[name]),
                    "left": sorted(path.name for path in directory.iterdir() if path.name.startswith(".")),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    import carousel.training.keeper
    import carousel.training.loop
    import carousel.training.progress  # noqa: F401 - so that no process has to

    main(Path(sys.argv[1]), int(sys.argv[2]))
