import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

POINTS = 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_that_is_killed_anywhere_goes_on_bit_for_bit(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "training.killed", str(tmp_path / "runs"), str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == POINTS
    assert all(outcome["killed"] for outcome in outcomes), outcomes
    bad = [outcome for outcome in outcomes if not outcome["same"]]
    assert not bad, f"{bad}\n{done.stderr[-3000:]}"
    assert {outcome["operation"] for outcome in outcomes if outcome["operation"]} == {
        "makedirs", "open", "write", "fsync", "rename", "replace", "rmtree", "unlink", "close",
    }  # fmt: skip
    assert {outcome["point"][0] for outcome in outcomes} == {"operation", "train", "valid"}
    assert {outcome["config"] for outcome in outcomes} == {"plain", "rich"}
    assert all(outcome["left"] == [".last.before"] for outcome in outcomes)  # no rubbish is left behind
