import logging
import random
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from carousel.errors import ConfigError
from carousel.training import Measured, TrainingConfig, train
from training.toy import ToyBatch, ToyBatches, ToyModel, read_rows, toy_model, toy_train


@pytest.mark.usefixtures("pictures")
def test_a_run_leaves_the_files_it_promises(tmp_path):
    result = toy_train(tmp_path / "run")
    names = sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file())
    events = [name for name in names if name.startswith("tensorboard/events.out.tfevents")]
    parts = ["manifest.json", "model.safetensors", "trainer.json", "trainer.safetensors"]
    kinds = ["best", "last", ".last.before"]
    assert names == sorted(
        ["learning_curve.png", "metrics.csv", *events, *(f"{kind}/{part}" for kind in kinds for part in parts)]
    )
    assert len(events) == 1
    assert result.epochs_run == 2
    assert not result.interrupted


def test_the_rows_of_the_result_are_those_of_the_file(tmp_path):
    result = toy_train(tmp_path, epochs=3)
    rows = read_rows(tmp_path)
    assert list(rows[0]) == [
        "epoch", "step", "seconds", "lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "tokens_per_second",
    ]  # fmt: skip
    assert [{name: float(cell) for name, cell in row.items()} for row in rows] == result.history
    assert result.last == result.history[-1]
    assert result.best == result.history[result.best_epoch - 1]
    assert result.best["valid_accuracy"] == max(row["valid_accuracy"] for row in result.history)
    assert [row["step"] for row in result.history] == [6, 12, 18]


def test_it_learns(tmp_path):
    result = toy_train(tmp_path, epochs=15, patience=None)
    assert result.history[0]["train_loss"] > 1.3 * result.last["train_loss"]
    assert result.best["valid_accuracy"] >= 0.8


def test_metrics_are_means_over_items_of_the_whole_epoch(tmp_path):
    model = toy_model()
    result = toy_train(tmp_path, model, epochs=1)
    model.eval()
    batches = ToyBatches(3, seed=1)
    loss = torch.nn.functional.cross_entropy(model.net(batches.x), batches.y).item()
    assert result.best["valid_loss"] == pytest.approx(loss, rel=1e-6)
    accuracy = (model.net(batches.x).argmax(-1) == batches.y).double().mean().item()
    assert result.best["valid_accuracy"] == pytest.approx(accuracy, rel=1e-12)


def test_the_model_ends_with_the_weights_of_the_best_epoch(tmp_path):
    model = toy_model()
    result = toy_train(tmp_path, model, monitor="loss", mode="max", epochs=3)  # so that the best epoch is an early one
    assert result.best_epoch == 1
    best, last = load_file(tmp_path / "best" / "model.safetensors"), load_file(tmp_path / "last" / "model.safetensors")
    assert sorted(best) == sorted(model.state_dict())
    assert all(torch.equal(model.state_dict()[name], best[name]) for name in best)
    assert not torch.equal(best["net.0.weight"], last["net.0.weight"])


def test_no_validation_judges_by_training(tmp_path):
    result = toy_train(tmp_path, valid=None, monitor="loss", mode="min")
    assert "valid_loss" not in result.last
    assert result.best["train_loss"] == min(row["train_loss"] for row in result.history)


def test_batches_hear_of_each_epoch_before_they_are_read(tmp_path):
    batches, valid = ToyBatches(), ToyBatches(3, seed=1)
    toy_train(tmp_path, batches=batches, valid=valid, epochs=3, patience=None)
    assert batches.epochs == [0, 1, 2]
    assert valid.epochs == [0, 0, 0]


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path):
    runs = [toy_train(tmp_path / str(n), seed=seed).last["train_loss"] for n, seed in enumerate([3, 3, 4])]
    assert runs[0] == runs[1] != runs[2]


def test_the_caller_gets_threads_generators_device_and_mode_back(tmp_path):
    threads = torch.get_num_threads()
    seen = []
    model = toy_model(on_measure=lambda _, loss: seen.append(torch.get_num_threads()) or loss).eval()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    toy_train(tmp_path, model, threads=threads + 1, epochs=1)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert set(seen) == {threads + 1}
    assert torch.get_num_threads() == threads
    assert not model.training
    assert next(model.parameters()).device.type == "cpu"


def test_nothing_is_pickled(tmp_path, monkeypatch):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("pickle was called")

    for owner, names in [(pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")), (torch, ("save", "load"))]:
        for name in names:
            monkeypatch.setattr(owner, name, refuse)
    toy_train(tmp_path, epochs=1)
    toy_train(tmp_path, epochs=2, resume=True)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not zipfile.is_zipfile(path), path
            assert not re.match(rb"\x80[\x02-\x05]", path.read_bytes()[:2]), path


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({"limit_train_batches": 3}, 3),
        ({"accumulate_grad_batches": 2}, 3),
        ({"precision": "bf16-mixed"}, 6),
        ({"precision": "64-true"}, 6),
        ({"max_steps": 4}, 4),
        ({"detect_anomaly": True, "deterministic": True, "limit_val_batches": 1}, 6),
        ({"limit_val_batches": 0}, 6),
        ({"profiler": "simple"}, 6),
        ({"overfit_batches": 2}, 2),
    ],
    ids=str,
)
def test_trainer_options_are_passed_through(tmp_path, trainer, steps):
    result = toy_train(tmp_path, epochs=1, trainer=trainer)
    assert result.last["step"] == steps
    assert ("valid_loss" in result.last) == (trainer.get("limit_val_batches") != 0)


def test_a_profiler_prints_its_table(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.profilers"):
        logging.getLogger("lightning.pytorch").addHandler(caplog.handler)
        toy_train(tmp_path, epochs=1, trainer={"profiler": "simple"})
        logging.getLogger("lightning.pytorch").removeHandler(caplog.handler)
    assert "Profiler Report" in caplog.text


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"trainer": {"accumulate_grad_batches": 2}}], ids=str)
def test_accumulated_batches_are_one_large_batch_also_where_the_last_is_smaller(tmp_path, options):
    whole, parts = toy_model(), toy_model()
    for model in (whole, parts):
        model.net[2].p = 0.0
    batches = ToyBatches(5)
    batches.x, batches.y = batches.x[:35], batches.y[:35]  # 8, 8, 8, 8 and 3
    order = torch.randperm(35, generator=seeded(0))
    small = [ToyBatch(batches.x[rows], batches.y[rows]) for rows in (*order[:13].split(8), *order[13:].split(8))]
    toy_train(tmp_path / "parts", parts, batches=Listed(small), epochs=1, optimizer="sgd", lr=1.0, valid=None, **options)
    large = [ToyBatch(*(torch.cat([getattr(batch, name) for batch in pair]) for name in "xy")) for pair in pairs(small)]
    toy_train(tmp_path / "whole", whole, batches=Listed(large), epochs=1, optimizer="sgd", lr=1.0, valid=None)
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def pairs(batches):
    return [batches[place : place + 2] for place in range(0, len(batches), 2)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_a_run_in_another_precision_learns_and_resumes_bit_for_bit(tmp_path, precision):
    options = {"precision": precision, "patience": None, "average": "ema", "schedule": "plateau"}
    seen = set()
    model = toy_model(on_measure=lambda model, loss: seen.add(model.net[0].weight.dtype) or loss)
    result = toy_train(tmp_path / "whole", model, epochs=6, **options)
    assert seen == {{"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)}
    assert result.last["train_loss"] < 0.97 * result.history[0]["train_loss"]
    toy_train(tmp_path / "parts", epochs=2, **options)
    toy_train(tmp_path / "parts", epochs=6, resume=True, **options)
    whole, parts = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(ConfigError, match="precision cannot change"):
        toy_train(tmp_path / "parts", epochs=7, resume=True, **(options | {"precision": None}))


@pytest.mark.parametrize(("hidden", "threads"), [(8, 1), (20_000, 3)])
def test_a_model_too_small_for_more_threads_gets_one(tmp_path, hidden, threads):
    seen = []
    model = toy_model(hidden=hidden, on_measure=lambda _, loss: seen.append(torch.get_num_threads()) or loss)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        toy_train(tmp_path / "auto", model, threads="auto", epochs=1)
        assert set(seen) == {threads}
        seen.clear()
        toy_train(tmp_path / "left", model, threads=None, epochs=1)
        assert set(seen) == {3}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Listed(list):
    def set_epoch(self, epoch):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("trainer", [{}, {"precision": "16-mixed"}, {"precision": "bf16-mixed"}], ids=str)
def test_a_run_on_a_gpu_resumes_bit_for_bit(tmp_path, trainer):
    whole, parts = toy_model(), toy_model()
    toy_train(tmp_path / "whole", whole, device="cuda", epochs=3, patience=None, trainer=trainer)
    toy_train(tmp_path / "parts", device="cuda", epochs=1, patience=None, trainer=trainer)
    toy_train(tmp_path / "parts", parts, device="cuda", epochs=3, patience=None, trainer=trainer, resume=True)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in parts.state_dict().items())


def test_a_value_that_the_trainer_refuses_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"these options are not possible(.|\n)*sharp"):
        toy_train(tmp_path / "run", trainer={"precision": "sharp"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"devices": 2, "num_nodes": 2}, "a run uses the devices of one machine"),
        ({"devices": 2, "strategy": "ddp_spawn"}, "this strategy is not possible"),
        ({"strategy": "fsdp"}, "this strategy is not possible"),
        ({"devices": "two"}, "trainer.devices must be a number of devices"),
        ({"devices": 0}, "trainer.devices must be a number of devices"),
    ],
    ids=str,
)
def test_devices_that_a_run_cannot_use_are_refused(tmp_path, trainer, words):
    with pytest.raises(ConfigError, match=words):
        toy_train(tmp_path / "run", trainer=trainer)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("monitor", "near"), [("acuracy", "accuracy"), ("los", "loss")])
def test_a_monitor_that_is_not_measured_names_the_nearest(tmp_path, monitor, near):
    with pytest.raises(ConfigError, match=f"unknown metric to monitor '{monitor}'. Did you mean '{near}'"):
        toy_train(tmp_path / "run", monitor=monitor)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_holds_a_run_is_refused(tmp_path):
    toy_train(tmp_path, epochs=1)
    before = read_rows(tmp_path)
    with pytest.raises(ConfigError, match=r"already holds a run(.|\n)*resume"):
        toy_train(tmp_path)
    assert read_rows(tmp_path) == before


def test_arguments_are_checked_at_the_door(tmp_path):
    with pytest.raises(ConfigError, match="unknown mode 'up'"):
        toy_train(tmp_path, mode="up")
    with pytest.raises(ConfigError, match=r"measure\(batch\) -> Measured"):
        toy_train(tmp_path, torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="nothing to train on"):
        toy_train(tmp_path, batches=ToyBatches(0))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_here_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="device cuda is not usable on this machine"):
        toy_train(tmp_path, device="cuda")


def test_a_model_without_metrics_is_judged_by_its_loss(tmp_path):
    class Plain(ToyModel):
        def measure(self, batch):
            measured = super().measure(batch)
            return Measured(measured.loss, items=measured.items, tokens=measured.tokens)

    config = TrainingConfig(epochs=1, device="cpu", threads=1, progress=False)
    result = train(Plain(), ToyBatches(), None, config, tmp_path, monitor="loss", mode="min")
    assert set(result.last) == {"epoch", "step", "seconds", "lr", "train_loss", "tokens_per_second"}
