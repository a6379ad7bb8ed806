import csv

import pytest

from carousel.errors import ConfigError
from carousel.training.config import LOGGERS, TrainingConfig
from carousel.training.loggers import CLASSES
from training.toy import read_rows, toy_train


def test_every_logger_that_can_be_named_is_one_of_the_training_library():
    from lightning.pytorch import loggers

    assert sorted(CLASSES) == sorted(LOGGERS)
    assert set(CLASSES.values()) <= set(loggers.__all__)


def test_a_logger_receives_the_rows_of_the_file(tmp_path):
    toy_train(tmp_path, logger="csv")
    with open(tmp_path / "csv-log" / "version_0" / "metrics.csv", newline="") as file:
        logged = list(csv.DictReader(file))
    expected = read_rows(tmp_path)
    assert len(logged) == len(expected) == 2
    for mine, theirs in zip(logged, expected, strict=True):
        assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}


def test_a_resumed_run_logs_on_in_a_version_of_its_own(tmp_path):
    toy_train(tmp_path, logger="csv", epochs=1)
    toy_train(tmp_path, logger="csv", epochs=2, resume=True)
    for version, epochs in (("version_0", ["1.0"]), ("version_1", ["2.0"])):
        with open(tmp_path / "csv-log" / version / "metrics.csv", newline="") as file:
            assert [str(float(row["epoch"])) for row in csv.DictReader(file)] == epochs


def test_options_reach_the_logger(tmp_path):
    toy_train(tmp_path / "run", logger="tensorboard", logger_options={"save_dir": str(tmp_path / "there"), "version": "mine"})
    assert list((tmp_path / "there" / "tensorboard-log" / "mine").glob("events.out.tfevents*"))


def test_a_misspelt_option_names_the_nearest_and_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown logger option 'save_dri'\. Did you mean 'save_dir'"):
        toy_train(tmp_path / "run", logger="csv", logger_options={"save_dri": "x"})
    assert not list(tmp_path.iterdir())


def test_a_logger_whose_library_is_missing_is_a_config_error(tmp_path):
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"logger: wandb is not possible here(.|\n)*install its library"):
            toy_train(tmp_path / "run", logger="wandb")


def test_a_logger_may_change_when_a_run_is_resumed(tmp_path):
    toy_train(tmp_path, epochs=1)
    assert toy_train(tmp_path, epochs=2, resume=True, logger="csv").epochs_run == 2
    assert "logger" not in TrainingConfig().identity()
