"""The command itself: help that answers at once, and every failure as one message."""

import errno
import os
import subprocess
import sys

import pytest

import carousel as package
from carousel.cli import main as cli
from carousel.errors import ConfigError

COMMAND = [sys.executable, "-m", "carousel"]
HEAVY = ("torch", "lightning", "numpy", "jsonargparse", "rich", "matplotlib", "yaml", "safetensors")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["tasks"], ["fit", "--help"], ["predict", "--help"], ["info"]])
def test_light_verbs_import_nothing_heavy(words):
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "carousel", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert imported
    assert not imported & set(HEAVY)


def test_help_names_every_verb(carousel):
    said = carousel("--help")
    assert said.code == 0
    for verb in cli.VERBS:
        assert f"\n  {verb} " in said.out
    assert carousel().code == 2


def test_version(carousel):
    assert carousel("--version").out == f"carousel {package.__version__}\n"


def test_unknown_verb_names_the_nearest(carousel):
    assert carousel("evalute", "x").refused().startswith("unknown verb 'evalute'. Did you mean 'evaluate'?")
    assert "options follow the verb" in carousel("--json", "info").refused()


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb != "fit"])
def test_unknown_option_of_every_verb_names_the_nearest(carousel, verb):
    option = "--jso" if verb in ("evaluate", "predict", "info") else "--hel"
    message = carousel(verb, "x", option).refused() if verb in ("evaluate", "predict") else carousel(verb, option).refused()
    assert message.startswith(f"unknown option '{option}'. Did you mean '{option + option[-1:] * 0}")


def test_missing_and_surplus_arguments_are_errors(carousel):
    assert "the following arguments are required: DIR" in carousel("evaluate").refused()
    assert "unrecognized arguments: surplus" in carousel("tasks", "surplus").refused()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("wrong"), 2, "carousel: error: wrong\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2, "carousel: error: runs/x: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 2, "carousel: error: runs/x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "\ncarousel: interrupted\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_expected_failure_is_one_message(carousel, monkeypatch, error, code, message):
    def fail(_words):
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    said = carousel("tasks")
    assert (said.code, said.out, said.err) == (code, "", message)


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("CAROUSEL_DEBUG", "1")
    with pytest.raises(ConfigError):
        cli.main(["nonsense"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_under_stdout_is_one_message():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "tasks"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "carousel: error: No space left on device\n")


def test_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
