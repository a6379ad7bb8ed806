"""Loads mutated run directories, watched; a program of its own, because a hook for audits cannot be taken off again.

usage: hostile_driver.py SCRATCH SEED COUNT SOURCE...; prints what it found as one line of JSON.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import carousel
from carousel.errors import CarouselError
from carousel.tasks import Classifier
from tasks import hostile_mutations

SECONDS = 2.0  # of processor time, for one load
SLACK = 24 << 20  # bytes that a load may take whatever the size of the files
TEXTS = ["a moving film", "", "dull"]
OURS = str(Path(carousel.__file__).parent)
FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.spawn",
    "socket.",
    "ctypes.dlopen",
    "os.remove",
)
FORBIDDEN += ("os.rename", "os.chmod", "os.link", "os.symlink", "os.mkdir", "shutil.", "code.__new__", "urllib.", "pty.")


class Hung(BaseException):
    """A load did not end."""


class Watch:
    """What happens inside a load that must not happen. Armed only there."""

    def __init__(self) -> None:
        self.armed: Path | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.armed is None:
            return
        if event == "import":
            self.seen.append(f"import {arguments[0]}")
        elif event in ("open", "os.listdir", "os.scandir"):
            path, flags = arguments[0], arguments[2] if event == "open" else 0
            if isinstance(path, int) or path is None:
                return
            real = os.path.realpath(os.fsdecode(path))
            source = real.startswith(OURS) and real.endswith(".py")  # a message shows the line of a cell's equation
            if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or not (source or Path(real).is_relative_to(self.armed)):
                self.seen.append(f"{event} {real}")
        elif event.startswith(FORBIDDEN):
            self.seen.append(event)


def memory(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))


def forget_the_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def hung(*_: object) -> None:
    raise Hung


def examine(run: Path, watch: Watch, found: Counter) -> list[str]:
    """Load a directory, and say what was wrong with that."""
    faults: list[str] = []
    peaks = forget_the_peak()
    before, start, model = memory("VmRSS") if peaks else 0, time.process_time(), None
    watch.seen.clear()
    signal.alarm(60)
    watch.armed = run.resolve()
    try:
        model = Classifier.load(run, device="cpu")
    except CarouselError as error:
        message = str(error)
        found[type(error).__name__] += 1
        watch.armed = None
        if len(message) > 20_000:
            faults.append(f"a message of {len(message)} characters")
    except BaseException as error:
        watch.armed = None
        faults.append(f"{type(error).__name__}: {error}"[:300])
    watch.armed = None
    signal.alarm(0)
    seconds = time.process_time() - start
    if seconds > SECONDS:
        faults.append(f"{seconds:.1f} s")
    if peaks and (grown := memory("VmHWM") - before) > 2 * size_of(run) + SLACK:
        faults.append(f"{grown >> 20} MiB for files of {size_of(run) >> 10} KiB")
    faults += sorted(set(watch.seen))
    if model is not None:
        found["loaded"] += 1
        faults += use(model)
    return faults


def use(model: Classifier) -> list[str]:
    """A model that was loaded answers, or says in our words why not."""
    import numpy as np

    try:
        texts = model.inputs_.source.kind == "text"
        answers = model.predict_records(TEXTS if texts else [np.zeros((4, len(model.inputs_.source.means)), np.float32)])
        json.dumps(answers, allow_nan=False)
    except CarouselError:
        return []
    except Exception as error:
        return [f"in use: {type(error).__name__}: {error}"[:300]]
    return []


def main(scratch: Path, seed: int, count: int, sources: list[Path]) -> dict:
    watch, found, failures = Watch(), Counter(), []
    signal.signal(signal.SIGALRM, hung)
    outside = scratch / "outside"
    # Everything that a load imports when it is first asked for, and every kind of message.
    import lightning.pytorch
    import tokenizers

    import carousel.training.quiet  # a configuration's `trainer` is checked against Lightning's own options

    assert lightning.pytorch, (tokenizers, carousel.training.quiet)
    for number in range(-40, count):
        draw = random.Random(f"{seed}/{number}")
        source = sources[number % len(sources)]
        run = scratch / "run"
        for folder in (run, outside):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
        if number >= len(sources) - 40:
            how = hostile_mutations.mutate(run, outside, draw)
        elif number < -37:
            (run / hostile_mutations.WEIGHTS).unlink()  # the best checkpoint's are read, by other modules
        if number == 0:
            sys.addaudithook(watch)
        if number < 0:
            with contextlib.suppress(CarouselError):
                use(Classifier.load(run, device="cpu"))
            continue
        faults = examine(run, watch, found)
        if faults:
            failures.append({"number": number, "source": source.name, "how": how, "faults": faults})
    return {"count": count, "found": dict(found), "failures": failures}


if __name__ == "__main__":
    folder, first, total, *directories = sys.argv[1:]
    os.environ["CAROUSEL_ENGINE"] = "eager"
    result = main(Path(folder), int(first), int(total), [Path(directory) for directory in directories])
    sys.stdout.write(json.dumps(result) + "\n")
