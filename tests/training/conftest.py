import pytest


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Leave the learning curves out of the runs, where they would take most of the time; `pictures` asks for them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("carousel.training.keeper.draw_learning_curve", draw_nothing)


@pytest.fixture
def pictures():
    """Draw the learning curves of this test's runs."""


def draw_nothing(path, rows, *, metric, best_epoch):
    assert path.name == "learning_curve.png"
    assert metric
    assert 0 <= best_epoch <= len(rows)
