import csv

from carousel.training.logs import EventLog, write_metrics


def test_metrics_read_back_as_the_same_floats(tmp_path):
    rows = [
        {"epoch": 1, "step": 5, "seconds": 0.1, "lr": 1e-3, "train_loss": 1 / 3, "tokens_per_second": 9.5},
        {
            "epoch": 2,
            "step": 10,
            "seconds": 0.2,
            "lr": 1e-3,
            "train_loss": 1e-17,
            "valid_loss": 0.1 + 0.2,
            "tokens_per_second": 9.0,
        },
    ]
    write_metrics(tmp_path / "metrics.csv", rows)
    with open(tmp_path / "metrics.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["epoch", "step", "seconds", "lr", "train_loss", "valid_loss", "tokens_per_second"]
    assert [[float(cell) if cell else None for cell in line] for line in lines] == [
        [row.get(name) for name in header] for row in rows
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_train_and_valid_share_a_heading_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventLog(tmp_path / "tensorboard")
    log.write({"epoch": 1, "step": 7, "lr": 0.5, "train_loss": 2.0, "valid_loss": 3.0})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss/train", "loss/valid", "run/epoch", "run/lr"]
    assert [(event.step, event.value) for event in events.Scalars("loss/valid")] == [(7, 3.0)]


def test_a_log_that_was_never_written_leaves_no_file(tmp_path):
    EventLog(tmp_path / "tensorboard").close()
    assert not list(tmp_path.iterdir())
