"""The contestants compute what they say: each equals an oracle that shares nothing with it, and a spoiled one is found out."""

import importlib.util

import pytest
import torch

from carousel.bench import PEERS, Work, compare
from carousel.bench.compare import TOLERANCE, allowed, far_off
from carousel.bench.jax import STEPS, processors
from carousel.bench.torch_loops import WRITTEN
from carousel.bench.work import MODES, Problem, Unavailable
from carousel.engines.plan import engines

CPU = next(info for info in engines() if info.name == "cpu")
SHAPE = (4, 3, 5, 6)


def check(peer, work):
    """Build a contestant and compare its results with float64's."""
    problem = Problem.draw(work)
    found = PEERS[peer].build(problem).results()
    distances = far_off(found, problem.expected())
    assert max(distances.values()) < 1e-5, distances
    return found, problem


@pytest.mark.parametrize("cell", sorted(WRITTEN))
@pytest.mark.parametrize("mode", ["train", "forward", "step"])
def test_loops_written_by_hand_are_the_cells(cell, mode):
    found, problem = check("ops", Work(cell, *SHAPE, mode=mode))
    wanted = {"output", "d x", *(f"d {name}" for name in problem.parameters)} if mode == "train" else {"output"}
    assert set(found) == wanted


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_after", "elman", "lstmp"])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_torchs_layers_are_the_cells(cell, mode):
    work = Work(cell, 6, 5, 7, 80 if cell == "lstmp" else 6, mode)  # the projection has 64 units, and must make fewer of H
    found, problem = check("torch", work)
    assert not work.trains or set(found) >= {"d x", *(f"d {name}" for name in problem.parameters)}


@pytest.mark.skipif(not CPU.usable, reason=CPU.reason)
@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("peer", ["cpu", "nn", "eager"])
def test_our_layers_are_the_cells(peer, mode):
    check(peer, Work("gru_reset_after", *SHAPE, mode=mode))


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.parametrize("cell", sorted(STEPS))
@pytest.mark.parametrize("mode", ["train", "forward", "step"])
def test_jax_computes_the_cells(cell, mode):
    check("jax", Work(cell, *SHAPE, mode=mode))


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm", "gru", "gru_reset_after", "elman"])
@pytest.mark.parametrize("mode", ["forward", "step"])
def test_onnx_runtime_computes_the_cells(cell, mode):
    check("onnxruntime", Work(cell, *SHAPE, mode=mode))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(Unavailable, match="jax is not installed"):
        PEERS["jax"].build(Problem.draw(Work("lstm", *SHAPE)))
    with pytest.raises(Unavailable, match="not installed"):
        PEERS["onnxruntime"].build(Problem.draw(Work("lstm", *SHAPE, mode="forward")))


def test_expected_results_are_those_of_torch_in_float64():
    """The measure of all contestants, against a module that this library had no part in."""
    problem = Problem.draw(Work("elman", *SHAPE))
    values = {name: value.double().requires_grad_() for name, value in problem.parameters.items()}
    x = problem.x.double().requires_grad_()
    h, outputs = torch.zeros(3, 6, dtype=torch.float64), []
    for x_t in x:
        h = torch.tanh(x_t @ values["W_h"].T + h @ values["U_h"].T + values["b_h"])
        outputs.append(h)
    torch.stack(outputs).backward(problem.d_output.double())
    expected = problem.expected()
    torch.testing.assert_close(expected["output"], torch.stack(outputs).detach())
    torch.testing.assert_close(expected["d x"], x.grad)
    for name, value in values.items():
        torch.testing.assert_close(expected[f"d {name}"], value.grad)


def test_operations_are_those_of_the_issue():
    T, B, I, H = SHAPE  # noqa: E741
    for cell, gates in (("lstm", 4), ("gru", 3), ("elman", 1)):
        assert Problem.draw(Work(cell, *SHAPE)).operations == 6 * T * B * (I + H) * gates * H
        assert Problem.draw(Work(cell, *SHAPE, mode="forward")).operations == 2 * T * B * (I + H) * gates * H
    ragged = Problem.draw(Work("lstm", 30, *SHAPE[1:], mode="ragged"))
    assert ragged.operations == 6 * int(ragged.lengths.sum()) * (I + H) * 4 * H
    assert 1 <= ragged.lengths.min() <= ragged.lengths.max() <= 30


def test_no_two_parameters_could_be_taken_for_each_other():
    """With equal biases, swapped gates would go unnoticed."""
    for name, value in Problem.draw(Work("layer_norm_lstm", *SHAPE)).parameters.items():
        assert value.unique().numel() == value.numel(), name


def test_distance_sees_what_is_wrong():
    right = {"a": torch.tensor([3.0, 4.0], dtype=torch.float64)}
    assert far_off({"a": torch.tensor([3.0, 4.5])}, right)["a"] == pytest.approx(0.1)
    assert far_off({"a": torch.tensor([3.0, float("nan")])}, right)["a"] == float("inf")
    assert far_off({"a": torch.tensor([[3.0, 4.0]])}, right)["a"] == float("inf")
    assert 0 < TOLERANCE < 1e-2


@pytest.mark.skipif(not CPU.usable, reason=CPU.reason)
def test_threads_and_processors_are_as_before():
    import os

    before, threads = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None, torch.get_num_threads()
    with processors(1):
        assert before is None or not os.path.isdir("/proc/self/task") or len(os.sched_getaffinity(0)) == 1
    compare(Problem.draw(Work("elman", *SHAPE)), ["ops", "jax"], 1, 1)
    assert torch.get_num_threads() == threads
    assert before is None or os.sched_getaffinity(0) == before


def test_what_others_lose_by_rounding_is_allowed_thrice():
    assert allowed([]) == allowed([1e-6]) == TOLERANCE
    assert allowed([5e-4, 2e-4]) == pytest.approx(6e-4)
    assert allowed([0.5]) == TOLERANCE  # that is no rounding: the other is wrong
