import inspect
import re
import subprocess
import sys

import pytest

import carousel.training
from carousel.errors import ConfigError
from carousel.training import TrainingConfig


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("epochs", 0, "epochs must be a whole number, at least 1"),
        ("epochs", 2.5, "got:      2.5"),
        ("epochs", True, "got:      True"),
        ("lr", 0.0, "lr must be a number above 0"),
        ("lr", float("nan"), "got:      nan"),
        ("lr", "fast", "got:      'fast'"),
        ("max_minutes", -1, "max_minutes must be a number above 0"),
        ("momentum", 1.0, "momentum must be a number 0 or more and below 1"),
        ("weight_decay", -0.1, "weight_decay must be a number 0 or more"),
        ("clip_norm", 0, "null for no clipping"),
        ("clip_value", 0, "null for no clipping"),
        ("patience", 0, "null to never stop early"),
        ("threads", 0, "threads must be a whole number, at least 1"),
        ("seed", -1, "seed must be a whole number, at least 0"),
        ("schedule", "cosin", "Did you mean 'cosine'"),
        ("warmup_steps", -1, "warmup_steps must be a whole number, at least 0"),
        ("lr_factor", 1.0, "lr_factor must be a number above 0 and below 1"),
        ("lr_epochs", 0, "lr_epochs must be a whole number, at least 1"),
        ("lr_end", 0.001, "lr_end must be below lr"),
        ("average", "mean", "unknown average 'mean'"),
        ("average_decay", 1.0, "average_decay must be a number above 0 and below 1"),
        ("average_from", 0, "average_from must be a whole number, at least 1"),
        ("accumulate", 0, "accumulate must be a whole number, at least 1"),
        ("matmul_precision", "bf16", "unknown matmul_precision 'bf16'"),
        ("precision", "8-bit", "unknown precision '8-bit'"),
        ("logger", "os.system", "expected: one of comet, csv, mlflow, tensorboard, wandb"),
        ("logger_options", {"name": "x"}, "logger_options needs a logger"),
        ("threads", "all", "threads must be a whole number, at least 1"),
        ("momentum", 0.9, "choose the optimizer sgd or rmsprop"),
        ("trainer", {"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be a whole number, at least 1"),
        ("trainer", {"max_steps": 0}, "trainer.max_steps must be a whole number, at least 1"),
        ("trainer", [], "trainer must map option names to values"),
    ],
)
def test_an_impossible_value_names_the_option_the_value_and_what_to_do(option, value, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        TrainingConfig(**{option: value})
    assert "try:" in str(caught.value) or "expected:" in str(caught.value)


@pytest.mark.parametrize(("option", "value", "near"), [("optimizer", "adamm", "adam"), ("device", "cudda", "cuda")])
def test_a_misspelt_choice_names_the_nearest(option, value, near):
    with pytest.raises(ConfigError, match=f"Did you mean '{near}'"):
        TrainingConfig(**{option: value})


@pytest.mark.parametrize(
    ("name", "instead"),
    [("max_epochs", "epochs"), ("gradient_clip_val", "clip_norm"), ("max_time", "max_minutes"), ("accelerator", "device")],
)
def test_a_trainer_option_that_the_run_owns_names_the_option_to_use(name, instead):
    with pytest.raises(ConfigError, match=f"trainer.{name} is decided by the run itself(.|\n)*`{instead}`"):
        TrainingConfig(trainer={name: 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate": 2, "trainer": {"accumulate_grad_batches": 2}}, "accumulate and trainer.accumulate_grad_batches are"),
        ({"precision": "bf16-mixed", "trainer": {"precision": "32-true"}}, "precision and trainer.precision are the same"),
        ({"schedule": "one_cycle", "warmup_steps": 5}, "begins with a warm-up of its own"),
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        TrainingConfig(**options)


def test_what_makes_a_run_what_it_is_holds_its_length_only_where_the_schedule_was_laid_out_for_it():
    assert "epochs" not in TrainingConfig(schedule="plateau").identity()
    assert TrainingConfig(schedule="cosine", epochs=7).identity()["epochs"] == 7
    for name in ("schedule", "warmup_steps", "average", "accumulate", "precision", "lr"):
        assert name in TrainingConfig().identity()
    for name in ("logger", "logger_options", "threads", "trainer"):
        assert name not in TrainingConfig().identity()


def test_an_unknown_trainer_option_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown trainer option 'precison'\. Did you mean 'precision'"):
        TrainingConfig(trainer={"precison": "bf16-mixed"})


def test_every_option_is_documented_for_the_command_line():
    documented = re.findall(r"^    (\w+): ", inspect.cleandoc(TrainingConfig.__doc__), re.MULTILINE)
    assert documented[: len(inspect.signature(TrainingConfig).parameters)] == list(inspect.signature(TrainingConfig).parameters)


def test_the_public_names_are_these():
    assert carousel.training.__all__ == [
        "Measured",
        "RateTest",
        "TrainableModel",
        "TrainingConfig",
        "TrainingResult",
        "choose_device",
        "draw_learning_curve",
        "find_batch_size",
        "find_lr",
        "load_checkpoint",
        "process_count",
        "save_checkpoint",
        "train",
    ]
    for name in carousel.training.__all__:
        assert getattr(carousel.training, name).__name__ == name


def test_importing_the_package_imports_no_heavy_library():
    code = "import sys, carousel.training; print([n for n in ('torch', 'lightning', 'matplotlib', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
