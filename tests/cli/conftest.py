"""Tiny data files, and a run trained on them once; `carousel` is called in this process unless a test says why not."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from carousel.cli.main import main

QUICK = ["--hidden_size", "8", "--embedding_size", "8", "--epochs", "3", "--lr", "0.03", "--dropout", "0.1"]
QUICK += ["--threads", "1", "--device", "cpu"]

OWN_CELL = '''
from pathlib import Path
from carousel.graph import Cell, sigmoid, tanh

Path(__file__).with_suffix(".was-run").touch()

class MinimalGatedUnit(Cell):
    """Zhou et al. (2016), "Minimal Gated Unit for Recurrent Neural Networks"."""
    state = ("h",)

    def step(self, x, h):
        f = sigmoid(self.affine("f", x, h))
        return (1 - f) * h + f * tanh(self.affine("h", x, f * h))
'''


@dataclass(frozen=True)
class Called:
    """How a call of the command ended."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """Check that it ended as a user's mistake does, and return the message."""
        assert self.code == 2, self
        assert self.out == ""
        assert self.err.count("carousel: error: ") == 1
        assert "Traceback" not in self.err
        return self.err.split("carousel: error: ")[1]


@pytest.fixture
def carousel(capsys, monkeypatch):
    """Call the command with these words."""
    monkeypatch.delenv("CAROUSEL_DEBUG", raising=False)

    def call(*words: object) -> Called:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Called(code, said.out, said.err)

    return call


def write_data(path: Path, count: int, seed: int) -> Path:
    draw = random.Random(seed)
    lines = ["text\tlabel"]
    for _ in range(count):
        label = draw.choice(["bad", "good"])
        words = [draw.choice(["the", "a", "film", "is", "plot"]) for _ in range(draw.randint(1, 4))]
        words.insert(draw.randint(0, len(words)), {"good": "moving", "bad": "dull"}[label])
        lines.append(f"{' '.join(words)}\t{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with train.tsv and valid.tsv. Tests do not write to it."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder / "train.tsv", 100, seed=1)
    write_data(folder / "valid.tsv", 30, seed=2)
    return folder


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, data) -> Path:
    """A finished run. Tests do not write to it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ["fit", "classify", "--train", str(data / "train.tsv"), "--valid", str(data / "valid.tsv"), "--out", str(out)]
    assert main([*words, *QUICK, "--progress", "false"]) == 0
    return out


@pytest.fixture
def own_cell(tmp_path) -> Path:
    """A user's file with a cell; it leaves a mark when it is run."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_cell.py").write_text(OWN_CELL)
    return folder / "my_cell.py"


@pytest.fixture
def quick() -> list[str]:
    return [*QUICK, "--progress", "false"]
