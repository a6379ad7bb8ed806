"""Runs side by side: what is read of their directories, and what the same data say."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from carousel.errors import CheckpointError, ConfigError, DataError
from carousel.tasks import Classifier
from carousel.tasks.comparison import Run, compare_answers, differing, names_of, plot_runs, read_run
from evaluations import answered


@pytest.fixture
def copy(run_dir, tmp_path):
    return shutil.copytree(run_dir, tmp_path / "copy")


def test_a_run_is_read_as_it_was_trained(run_dir, valid_pairs):
    run, model = read_run(run_dir), Classifier.load(run_dir)
    scores = model.evaluate(valid_pairs)
    assert run.scores == pytest.approx({name: scores[name] for name in ("accuracy", "macro_f1", "loss")})
    assert run.parameters == sum(parameter.numel() for parameter in model.network_.parameters())
    assert run.model_bytes == (run_dir / "model.safetensors").stat().st_size
    assert run.directory_bytes == sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
    assert len(run.history) == 4
    best = run.history[run.best_epoch - 1]
    assert best["valid_accuracy"] == max(row["valid_accuracy"] for row in run.history)
    assert run.minutes == run.history[-1]["seconds"] / 60
    assert run.tokens_per_second == pytest.approx(np.median([row["tokens_per_second"] for row in run.history]))
    assert run.settings["hidden_size"] == 8
    json.dumps(run.to_dict(), allow_nan=False)


def test_settings_that_differ_are_found(run_dir):
    run = read_run(run_dir)
    other = replace(run, settings=run.settings | {"cell": "gru", "carousel": "9.9"})
    fewer = replace(run, settings={name: value for name, value in run.settings.items() if name != "lr"})
    assert differing([run, run]) == {}
    assert differing([run, other, fewer]) == {"cell": ["lstm", "gru", "lstm"], "lr": [0.02, 0.02, None]}


def test_a_run_in_the_making_is_read_too(copy):
    for name in ("report.json", "model.safetensors", "metrics.csv"):
        (copy / name).unlink()
    run = read_run(copy)
    assert (run.scores, run.best_epoch, run.history, run.parameters, run.minutes) == ({}, None, [], None, None)


def test_links_out_of_the_directory_are_not_followed(copy, tmp_path):
    for name in ("report.json", "metrics.csv", "model.safetensors"):
        outside = (copy / name).rename(tmp_path / name)
        (copy / name).symlink_to(outside)
    run = read_run(copy)
    assert (run.scores, run.history, run.parameters) == ({}, [], None)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"scores": {"a": 1}}', "[" * 100_000, '{"scores": {"a": {"value": "x"}}}']
)
def test_a_damaged_report_counts_as_none(copy, content):
    (copy / "report.json").write_text(content)
    run = read_run(copy)
    assert (run.scores, run.best_epoch) == ({}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch,valid_loss\n1,zero\n", r"metrics.csv:2: damaged: not a number"),
        ("epoch,valid_loss\n1,0.5\n2,0.5,7\n", r"metrics.csv:3: damaged: too many columns"),
        ("step,valid_loss\n1,0.5\n", r"metrics.csv:2: damaged: no epoch"),
        ("epoch,valid_loss\n\udcff,0.5\n", r"metrics.csv: damaged"),
    ],
)
def test_damaged_metrics_are_one_error(copy, content, message):
    (copy / "metrics.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        read_run(copy)


def test_what_is_no_run_is_refused(copy, tmp_path):
    with pytest.raises(ConfigError, match="no such directory"):
        read_run(tmp_path / "missing")
    with pytest.raises(ConfigError, match="not a run directory"):
        read_run(tmp_path)
    (copy / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(copy)


def test_names_are_short_where_they_can_be(tmp_path):
    runs = [Run(tmp_path / path, {}, {}, None, [], None, None, 0) for path in ("a/x", "b/x", "y")]
    assert names_of(runs) == [str(tmp_path / "a/x"), str(tmp_path / "b/x"), "y"]


@pytest.mark.parametrize("kind", ["one", "several"])
def test_the_order_of_labels_does_not_matter(kind):
    first = answered(kind, N=80, skill=0.7)
    second = replace(first, logits=answered(kind, N=80, seed=9).logits + first.logits)
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    shuffled = replace(
        second,
        labels=tuple(second.labels[at] for at in order),
        logits=second.logits[:, order],
        truth=place[second.truth] if kind == "one" else second.truth[:, order],
    )
    plain, mixed = compare_answers([first, second]), compare_answers([first, shuffled])
    assert mixed[1].differences == plain[1].differences
    assert (mixed[1].only_first, mixed[1].p_value) == (plain[1].only_first, plain[1].p_value)
    assert plain[0].differences == {}
    assert plain[0].p_value is None
    for name, difference in plain[1].differences.items():
        assert difference.value == pytest.approx(plain[1].scores[name].value - plain[0].scores[name].value, abs=1e-12)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_a_model_that_knows_more_labels_can_be_compared(kind):
    first = answered(kind, N=80)
    wider = replace(
        first,
        labels=("another", *first.labels),
        logits=np.concatenate([np.full((80, 1), -4.0), first.logits], axis=1),
        truth=first.truth + 1 if kind == "one" else np.concatenate([np.zeros((80, 1), bool), first.truth], axis=1),
    )
    found = compare_answers([first, wider])[1]
    score = "accuracy" if kind == "one" else "exact_match"
    assert found.differences[score].value == 0.0
    assert all(np.isfinite(interval.value) for interval in found.differences.values())


def test_numbers_are_compared_without_mcnemar():
    first = answered("number")
    better = replace(first, logits=(first.logits + first.truth) / 2)
    found = compare_answers([first, better])[1]
    assert found.differences["mae"].high < 0
    assert found.p_value is None


def test_models_that_answer_differently_cannot_be_compared():
    with pytest.raises(ConfigError, match="different things"):
        compare_answers([answered("one"), answered("several")])
    with pytest.raises(ConfigError, match="different targets"):
        compare_answers([answered("number"), answered("number", labels=("a", "b", "c", "d"))])


def test_curves_are_drawn(run_dir, tmp_path):
    run = read_run(run_dir)
    plot_runs([run, replace(run, history=[])], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="cannot be drawn"):
        plot_runs([run], tmp_path / "curves.txt")
