"""The scores that follow from counts, and their picture."""

import pytest

from carousel.errors import OutputError
from carousel.tasks.confusion import Confusion, plot_confusion


def test_scores_of_a_worked_example():
    # Truth a: 3 right, 1 taken for b. Truth b: 2 right, 2 taken for c. Label d never occurs and does not count.
    confusion = Confusion(["a", "b", "c", "d"], [[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]], loss=0.5)
    f1 = [2 * 3 / (4 + 3), 2 * 2 / (4 + 3), 0.0]
    scores = confusion.scores()
    assert list(scores) == ["accuracy", "macro_f1", "loss", "count"]
    assert scores["accuracy"] == 5 / 8
    assert scores["macro_f1"] == pytest.approx(sum(f1) / 3, rel=1e-12)
    assert (scores["loss"], scores["count"]) == (0.5, 8)


@pytest.mark.parametrize("V", [2, 18, 80])
def test_picture_is_written_for_any_number_of_labels(tmp_path, V):
    counts = [[1 + (row == column) * 9 for column in range(V)] for row in range(V)]
    confusion = Confusion([f"label {number}" for number in range(V)], counts, loss=1.0)
    path = plot_confusion(confusion, tmp_path / "confusion.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]


def test_picture_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        plot_confusion(Confusion(["a", "b"], [[1, 0], [0, 1]], loss=0.0), tmp_path / "missing" / "confusion.png")
