import math
import sys

import numpy as np
import pytest
from PIL import Image

from carousel.training import draw_learning_curve


def rows(epochs):
    return [
        {
            "epoch": n,
            "train_loss": 2 / n,
            "train_accuracy": 1 - 1 / n,
            "valid_loss": 2 / n + 0.1 * n,
            "valid_accuracy": 0.9 - 1 / n,
        }
        for n in range(1, epochs + 1)
    ]


def colours(path):
    with Image.open(path) as image:
        return image.size, set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_the_picture_shows_both_curves(tmp_path, epochs):
    draw_learning_curve(tmp_path / "curve.png", rows(epochs), metric="accuracy", best_epoch=epochs)
    size, seen = colours(tmp_path / "curve.png")
    assert size[0] > 1.5 * size[1]
    assert {(0x7A, 0x8C, 0xA3), (0xD1, 0x49, 0x5B)} <= seen


def test_one_panel_when_the_loss_is_monitored(tmp_path):
    draw_learning_curve(tmp_path / "loss.png", rows(3), metric="loss", best_epoch=2)
    draw_learning_curve(tmp_path / "both.png", rows(3), metric="accuracy", best_epoch=2)
    assert colours(tmp_path / "loss.png")[0][0] < colours(tmp_path / "both.png")[0][0]


def test_values_that_are_not_finite_are_left_out(tmp_path):
    bad = [*rows(2), {"epoch": 3, "train_loss": math.inf, "valid_loss": math.nan}]
    draw_learning_curve(tmp_path / "curve.png", bad, metric="accuracy", best_epoch=0)
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_no_window_system_is_touched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is now an error
    draw_learning_curve(tmp_path / "curve.png", rows(2))
