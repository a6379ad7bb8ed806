"""Make this folder's model from a run: only what writing needs, weights in half precision.

python shrink.py RUN [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from carousel.tasks import Poet
from carousel.tasks.run_directory import CONFIG_FILE, WEIGHTS_FILE, read_config
from carousel.tasks.weights import read_weights, write_weights

FILES = (CONFIG_FILE, WEIGHTS_FILE, "forms.json", "rhymes.json", "text.json", "vocabulary.json")


def shrink(run: Path, folder: Path) -> int:
    """Copy a run, small; returns the bytes."""
    whole = Poet.load(run, device="cpu").save(folder / "whole")
    config = read_config(whole / CONFIG_FILE).values
    weights = {name: tensor.half() for name, tensor in read_weights(whole / WEIGHTS_FILE).items()}
    for name in FILES:
        (whole / name).replace(folder / name)
    whole.rmdir()
    write_weights(folder / WEIGHTS_FILE, weights, task="poem", config=config)
    return sum((folder / name).stat().st_size for name in FILES)


if __name__ == "__main__":
    run, *folder = map(Path, sys.argv[1:])
    print(f"{shrink(run, *folder or [Path(__file__).parent]):,} bytes")
