"""The benchmark runs, and says what it left out where the others are not installed."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "structured.py"


def test_it_runs_or_says_what_is_missing():
    command = [sys.executable, str(BENCHMARK), "--quick", "--only", "crf,viterbi,hmm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout
    for module, package in (("torchcrf", "pytorch-crf"), ("hmmlearn", "hmmlearn")):
        installed = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
        assert (f"left out: {package}" in done.stderr) is not installed
