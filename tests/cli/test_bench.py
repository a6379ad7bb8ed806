"""`carousel bench`: what it prints and writes, and how it refuses."""

import json

import pytest

from carousel.bench import compare as _compare  # noqa: F401 - the package imports in full
from carousel.bench import ours, torch_loops
from carousel.engines.plan import engines

CPU = next(info for info in engines() if info.name == "cpu")
needs_cpu = pytest.mark.skipif(not CPU.usable, reason=CPU.reason)
SMALL = ["--quick", "--cells", "lstm", "--shapes", "3x2x4x5", "--peers", "torch,ops,eager"]


@needs_cpu
def test_all_contestants_are_checked_timed_and_written_down(carousel, tmp_path):
    numbers, picture = tmp_path / "numbers.json", tmp_path / "bars.png"
    said = carousel("bench", *SMALL, "--mode", "train,forward", "--json", numbers, "--plot", picture)
    assert said.code == 0, said.err
    assert "All results are right." in said.err
    lines = said.out.splitlines()
    assert lines[0].split()[:4] == ["work", "threads", "contestant", "time"]
    assert sum(line.startswith("lstm train 3x2x4x5") for line in lines) == 1
    found = json.loads(numbers.read_text())
    assert found["machine"]["cpu"]
    train, forward = found["comparisons"]
    assert (train["work"]["mode"], forward["work"]["mode"]) == ("train", "forward")
    assert list(train["entries"]) == ["cpu", "torch", "ops", "eager"]
    for entry in train["entries"].values():
        assert entry["seconds"]["median"] > 0
        assert 0 <= entry["error"] < 1e-5
    assert train["entries"]["cpu"]["ratio"]["median"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


@needs_cpu
def test_a_wrong_contestant_is_named_and_not_timed(carousel, monkeypatch):
    monkeypatch.setitem(torch_loops.WRITTEN, "lstm", torch_loops.WRITTEN["coupled_lstm"])
    written = torch_loops.WRITTEN["peephole_lstm"]
    spoiled = torch_loops.Written(
        written.layout, written.before, lambda w, z, s: tuple(1.01 * v for v in written.step(w, z, s)), 2
    )
    monkeypatch.setitem(torch_loops.WRITTEN, "peephole_lstm", spoiled)
    said = carousel("bench", "--quick", "--cells", "peephole_lstm", "--peers", "ops,eager")
    assert said.code == 1
    assert "Some results are wrong" in said.err
    [line] = [line for line in said.out.splitlines() if " ops " in line]
    assert "wrong" in line
    assert "of its norm" in line


@needs_cpu
def test_what_a_contestant_cannot_do_is_said(carousel):
    said = carousel("bench", "--quick", "--cells", "mgu", "--peers", "torch,ops,onnxruntime")
    assert said.code == 0
    assert "without torch: torch.nn has no such cell (mgu)" in said.err
    assert "without ops: no loop was written by hand" in said.err
    assert "without onnxruntime: ONNX Runtime computes no gradients (mgu)" in said.err


@needs_cpu
def test_markdown(carousel):
    said = carousel("bench", *SMALL, "--markdown")
    assert said.out.startswith("| work | threads | contestant |")
    assert all(line.count("|") == 8 for line in said.out.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cells", "lsmt"], "unknown cell 'lsmt'. Did you mean 'lstm'?"),
        (["--cells", ""], "unknown cell ''"),
        (["--cells", "gru_d"], "gru_d cannot be measured"),
        (["--cells", "conv_lstm"], "conv_lstm cannot be measured"),
        (["--cells", "attention_gru"], "it takes x, memory, mask"),
        (["--shapes", "100x32"], "--shapes: this is no shape."),
        (["--shapes", "100x32xax4"], "--shapes: this is no shape."),
        (["--shapes", "0x1x2x3"], "a shape is T x B x I x H, each at least 1"),
        (["--threads", "0"], "--threads: not possible here."),
        (["--threads", "1000000"], "the processors here"),
        (["--threads", "two"], "--threads: not possible here."),
        (["--mode", "training"], "unknown mode 'training'. Did you mean 'train'?"),
        (["--peers", "troch"], "unknown peer 'troch'. Did you mean 'torch'?"),
        (["--repeats", "0"], "--repeats must be at least 1."),
        (["--repeats", "many"], "invalid int value"),
        (["--json", "no/such/folder/x.json"], "--json: there is no folder"),
        (["--plot", "bars.txt"], "--plot: this kind of picture cannot be drawn."),
        (["--peer", "torch"], "unknown option '--peer'. Did you mean '--peers'?"),
    ],
)
def test_bad_arguments_are_one_message(carousel, words, message):
    assert message in carousel("bench", *words).refused()


def test_the_names_of_our_layers_are_those_of_torch():
    assert {kind.__name__: other.__name__ for kind, other in ours.REPLACEMENTS.items()} == {
        n: n for n in ("LSTM", "GRU", "RNN")
    }
