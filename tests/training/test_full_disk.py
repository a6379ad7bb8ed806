"""A disk that is full, fails or may not be written to: one error of ours, and the checkpoint from before is there."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carousel.errors import OutputError
from carousel.training import load_checkpoint
from faults import intercept
from training.killed import same, summary
from training.toy import toy_model, toy_train

CONFIG = {"epochs": 3, "patience": None, "save_steps": 3}


def failing_from(when, number):
    """A hook whose disk fails from operation `when` on, for what needs room or a right."""
    seen = []

    def hook(operation):
        seen.append(operation)
        if len(seen) > when and operation in ("makedirs", "open", "write", "fsync", "rename", "replace"):
            raise OSError(number, os.strerror(number))

    return hook, seen


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_stops_the_run_and_the_resumed_one_is_whole(tmp_path, monkeypatch, number):
    toy_train(tmp_path / "whole", **CONFIG)
    with monkeypatch.context() as patch:
        hook, seen = failing_from(10_000, number)
        intercept(hook, patch.setattr)
        toy_train(tmp_path / "dry", **CONFIG)
    for share in (0.15, 0.4, 0.65, 0.9, 0.99):
        run = tmp_path / str(share)
        with monkeypatch.context() as patch:
            hook, _ = failing_from(int(share * len(seen)), number)
            intercept(hook, patch.setattr)
            with pytest.raises(OutputError, match=rf"cannot be written(.|\n)*{os.strerror(number)}(.|\n)*try:"):
                toy_train(run, **CONFIG)
        assert load_checkpoint(run / "last")["callbacks"]["carousel"]["run"]["monitor"] == "accuracy"
        toy_train(run, resume=True, **CONFIG)
        assert same(summary(run), summary(tmp_path / "whole"))


def test_a_run_that_could_not_even_begin_leaves_nothing(tmp_path, monkeypatch):
    hook, _ = failing_from(5, errno.ENOSPC)
    with monkeypatch.context() as patch:
        intercept(hook, patch.setattr)
        with pytest.raises(OutputError, match="make room"):
            toy_train(tmp_path / "run", **CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_place_where_no_directory_can_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/run: the directory cannot be written"):
        toy_train(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_said(tmp_path):
    toy_train(tmp_path / "run", epochs=1)
    (tmp_path / "run").chmod(0o555)
    try:
        with pytest.raises(OutputError, match="choose a place that you may write to"):
            toy_train(tmp_path / "run", epochs=2, resume=True)
    finally:
        (tmp_path / "run").chmod(0o755)
    assert load_checkpoint(tmp_path / "run" / "last")["epoch"] == 0


def limit_files(size):
    """Let no file of this process grow beyond `size` bytes: the nearest to a full disk that needs no rights."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


SCRIPT = """
import sys
from carousel.cli import main
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the sizes of files")
def test_the_command_says_it_in_one_message_and_the_run_goes_on_later(tmp_path):
    data = tmp_path / "train.tsv"
    lines = [f"{'good' if number % 2 else 'bad'}\t{'fine day' if number % 2 else 'dull'} {number % 7}" for number in range(40)]
    data.write_text("\n".join(["label\ttext", *lines]) + "\n")
    from carousel.tasks import Classifier

    options = {"hidden_size": 8, "embedding_size": 8, "batch_size": 8, "threads": 1, "patience": None}
    run = tmp_path / "run"
    Classifier(**options, epochs=1, progress=False).fit(data, data, out=run)
    size = max(path.stat().st_size for path in (run / "last").iterdir())
    given = [f"--{name}={'null' if value is None else value}" for name, value in options.items()]
    files = ["--train", str(data), "--valid", str(data), "--out", str(run)]
    full = subprocess.run(
        [sys.executable, "-c", SCRIPT, "fit", "classify", *files, *given, "--epochs=3", "--resume"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: limit_files(size // 2),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=300,
    )
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert full.stderr.count("carousel: error:") == 1
    assert "cannot be written" in full.stderr
    assert "make room" in full.stderr
    assert len(load_checkpoint(run / "last")["callbacks"]["carousel"]["run"]["history"]) == 1
    model = Classifier(**options, epochs=3, progress=False).fit(data, data, out=run, resume=True)
    assert model.result_.epochs_run == 3


def test_the_model_stays_usable_after_a_failed_save(tmp_path, monkeypatch):
    model = toy_model()
    hook, _ = failing_from(60, errno.EIO)
    with monkeypatch.context() as patch:
        intercept(hook, patch.setattr)
        with pytest.raises(OutputError, match="failing"):
            toy_train(tmp_path, model, **CONFIG)
    assert model.training  # in the mode it came in
