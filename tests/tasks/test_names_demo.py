"""`make demo` does what it says, and the commands it ends with work when they are pasted."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_demo_trains_shows_and_names_commands_that_work(tmp_path):
    demo = [sys.executable, "examples/names/demo.py", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stderr
    assert "of 1802 names, macro F1 0." in done.stdout
    assert "Takahashi" in done.stdout
    assert (tmp_path / "run" / "confusion.png").exists()
    commands = [line.strip() for line in done.stdout.rsplit("Now try", 1)[1].splitlines() if "carousel" in line]
    assert len(commands) == 4
    asked = subprocess.run(commands[0], shell=True, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(asked.stdout)["label"]
    for command in commands[1:]:
        assert Path(ROOT, command.split()[0]).exists()
