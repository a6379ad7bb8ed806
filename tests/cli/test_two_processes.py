"""`carousel fit` on two devices: one command, two processes, one result."""

import subprocess
import sys

import torch
from safetensors.torch import load_file


def test_two_devices_give_what_one_gives_with_the_double_batch(carousel, data, tmp_path):
    def words(out, batch_size, *more):
        # sgd, because Adam divides by gradients that may be mere rounding
        options = ["--optimizer", "sgd", "--lr", "0.5", "--dropout", "0", "--word_dropout", "0", "--epochs", "2"]
        options += ["--hidden_size", "8", "--embedding_size", "8", "--device", "cpu", "--batch_size", batch_size, *more]
        return ["fit", "classify", "--train", data / "train.tsv", "--valid", data / "valid.tsv", "--out", out, *options]

    two = words(tmp_path / "two", 8, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    done = subprocess.run([sys.executable, "-m", "carousel", *map(str, two)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run directory:") == 1
    assert done.stderr.count("epoch 1/2") == 1
    assert done.stderr.count("examples to learn from") == 1
    assert carousel(*words(tmp_path / "one", 16)).code == 0
    ours, theirs = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("two", "one"))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("two", "one")]
    assert names[0] == names[1]
    assert carousel("evaluate", tmp_path / "two", "--data", data / "valid.tsv").code == 0
