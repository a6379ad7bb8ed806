"""`benchmarks/peers.py` runs, and judges as the issue asks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from carousel.engines.plan import engines

FOLDER = Path(__file__).parents[2] / "benchmarks"
CPU = next(info for info in engines() if info.name == "cpu")

pytestmark = pytest.mark.skipif(not CPU.usable, reason=CPU.reason)


@pytest.fixture
def around(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import around

    yield around
    for name in ("around", "timing"):  # other folders may have modules of these names
        sys.modules.pop(name, None)


def test_rows_run_and_are_right(tmp_path):
    numbers = tmp_path / "numbers.json"
    command = [sys.executable, "-W", "error", FOLDER / "peers.py", "--quick", "--only", "rnn,words,ragged", "--threads", "1"]
    done = subprocess.run([*map(str, command), "--json", str(numbers)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout
    rows = json.loads(numbers.read_text())["rows"]
    assert next(row["what"] for row in rows if row["peer"] == "torch") == "elman train 3x2x5x6"
    assert all(row["ratio"] or row["why_not"] for row in rows)


@pytest.mark.parametrize(
    ("settings", "ratio", "share", "reached"),
    [
        ({}, 1.3, 0.1, True),
        ({}, 1.1, 0.79, True),  # either is enough with one thread
        ({"threads": 2}, 1.1, 0.79, False),
        ({}, 1.1, 0.77, False),
        ({"at_most": True, "share_required": None}, 1.1, None, True),
        ({"at_most": True, "share_required": None}, 1.3, None, False),
    ],
)
def test_reached(around, settings, ratio, share, reached):
    def spread(value):
        return None if value is None else around.Spread(value, value, value)

    given = {"threads": 1, "peer": "torch", "required": 1.2, "share_required": 0.78, **settings}
    row = around.Row("lstm", **given)
    assert row.reached is None
    assert row.measured(spread(1.0), spread(1.0), spread(ratio), spread(share)).reached is reached
