"""The benchmarks still run, and what they time is right; their numbers are for quiet machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from carousel.engines.plan import engines

KERNELS = Path(__file__).parents[1] / "benchmarks" / "kernels.py"
CPU = next(info for info in engines() if info.name == "cpu")

pytestmark = pytest.mark.skipif(not CPU.usable, reason=CPU.reason)


def run(*arguments):
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_rows_of_the_kernels_run_and_are_right(tmp_path):
    numbers = tmp_path / "numbers.json"
    done = run(KERNELS, "--quick", "--json", numbers)
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout
    rows = {row["what"]: row for row in json.loads(numbers.read_text())["rows"]}
    for what in (
        "packed product M 32 K 24 N 128",
        "forward + backward gru T 4 B 9 H 20",
        "2 threads, forward + backward lstm T 4 B 9 H 20",
        "a new cell's first forward + backward, cached",
    ):
        assert rows[what]["value"]["median"] > 0
    assert any(what.startswith("memory gained in 50 ") for what in rows)


def test_training_runs_against_plain_loops_and_is_right(tmp_path):
    data, numbers = tmp_path / "train.tsv", tmp_path / "numbers.json"
    lines = [f"{'good' if n % 3 else 'bad'}\t{' '.join(f'w{n * k % 17}' for k in range(1, 3 + n % 5))}" for n in range(300)]
    data.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    script = KERNELS.with_name("training.py")
    done = run(script, data, "--quick", "--threads", 1, "--hidden_size", 8, "--json", numbers)
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout
    rates = json.loads(numbers.read_text())["tokens_per_second"]
    assert len(rates) == 3
    assert all(rate > 0 for found in rates.values() for rate in found)


def test_language_models_run_against_torch_and_are_right(tmp_path):
    numbers = tmp_path / "numbers.json"
    done = run(KERNELS.with_name("language_model.py"), "--quick", "--json", numbers)
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout
    rows = json.loads(numbers.read_text())["rows"]
    assert [row["required"] for row in rows] == [1.6, 1.0, 3.0]
    assert all(row[side]["median"] > 0 for row in rows for side in ("ours", "theirs"))


def test_a_wrong_result_stops_the_benchmark(tmp_path):
    """The same program, with a sigmoid in the checking engine that is a little off."""
    spoiled = tmp_path / "spoiled.py"
    spoiled.write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(KERNELS.parent)!r})\nimport torch\n"
        "right = torch.sigmoid\ntorch.sigmoid = lambda x: right(x) * 1.01\n"
        "sys.argv = ['kernels.py', '--quick', '--only', 'loops', '--cells', 'lstm']\n"
        f"runpy.run_path({str(KERNELS)!r}, run_name='__main__')\n"
    )
    done = run(spoiled)
    assert done.returncode != 0
    assert "is wrong, relative error" in done.stderr


def test_rounded_layers_run_and_are_right():
    done = run(KERNELS.with_name("rounded.py"), "--quick")
    assert done.returncode == 0, done.stderr
    assert "all results are right" in done.stdout or "no tiles" in done.stdout
