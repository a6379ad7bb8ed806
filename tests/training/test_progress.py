import io
import logging
import re
import sys
import warnings

import pytest

from training.toy import ToyBatches, toy_train


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_is_one_line_per_epoch_and_nothing_else(tmp_path, capfd):
    toy_train(tmp_path, epochs=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        assert re.fullmatch(
            rf"epoch {number}/2  train loss [\d.]+ accuracy [\d.]+  valid loss [\d.]+ accuracy [\d.]+"
            r"  [\d.]+[kM]? tokens/s  [\d.]+ s(  best so far)?",
            line,
        )


def test_silence_is_silent(tmp_path, capfd):
    toy_train(tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("carousel.training.progress.SECONDS_BETWEEN_FRAMES", 0.0)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    toy_train(tmp_path, epochs=2, progress=True, batches=ToyBatches(7), max_minutes=5.0)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(
        r"epoch 2/2 \S* *3/7  loss \d\.\d{4}  accuracy 0\.\d+ \(best 0\.\d+\)  [\d.]+k? tokens/s  \d:\d\d left", shown
    )
    assert "validation" in shown
    assert re.search(r"epoch 1/2  train loss", shown)


def test_levels_and_filters_are_set_back(tmp_path):
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    toy_train(tmp_path, epochs=1)
    assert (logger.level, list(warnings.filters)) == (level, filters)


def test_a_warning_of_the_model_comes_through(tmp_path):
    from training.toy import toy_model

    with pytest.warns(UserWarning, match="look here"):
        toy_train(tmp_path, toy_model(on_measure=lambda _, loss: warnings.warn("look here", stacklevel=1) or loss), epochs=1)
