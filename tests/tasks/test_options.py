"""One declaration of an option gives its help, its default, its check and its message."""

import dataclasses
import inspect

import pytest

from carousel.errors import ConfigError
from carousel.tasks import TASKS, Classifier, load_task
from carousel.tasks.classify import ClassifierOptions
from carousel.tasks.options import check_values, describe
from carousel.training import TrainingConfig


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_every_task_has_help_and_a_default(name):
    options = load_task(name).option_list()
    assert len({option.name for option in options}) == len(options)
    for option in options:
        assert option.help, option.name
        assert "\n" not in option.help


@pytest.mark.parametrize("kind", [ClassifierOptions, TrainingConfig])
def test_documented_names_are_the_fields(kind):
    helped = [option.name for option in describe(kind) if option.help]
    assert helped == [field.name for field in dataclasses.fields(kind)]


def test_signature_of_the_class_shows_the_options():
    parameters = inspect.signature(Classifier).parameters
    assert parameters["hidden_size"].default == 128
    assert parameters["summary"].default == "attention"
    assert parameters["epochs"].default == Classifier().training.epochs


def test_shared_option_names_of_the_design_exist():
    shared = {"cell", "hidden_size", "num_layers", "bidirectional", "embedding_size", "dropout", "batch_size", "epochs"}
    shared |= {"max_minutes", "lr", "optimizer", "clip_norm", "clip_value", "weight_decay", "seed", "threads"}
    shared |= {"engine", "device"}
    assert shared <= {option.name for option in Classifier.option_list()}


def test_unknown_option_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Classifier: unknown option 'hiden_size'. Did you mean 'hidden_size'\?"):
        Classifier(hiden_size=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, r"option hidden_size: out of range.\n  got:      0\n  expected: at least 1"),
        ({"hidden_size": 2.5}, r"option hidden_size: not a possible value.\n  got:      2.5\n  expected: a whole number"),
        ({"hidden_size": True}, "option hidden_size: not a possible value"),
        ({"dropout": 1.0}, "option dropout: out of range.\n  got:      1.0\n  expected: at least 0 and below 1"),
        ({"dropout": float("nan")}, "option dropout: out of range"),
        ({"bidirectional": 1}, "option bidirectional: .*\n.*\n  expected: true or false"),
        ({"summary": "attentoin"}, "option summary: unknown value 'attentoin'. Did you mean 'attention'"),
        ({"cell": "lsmt"}, "unknown cell 'lsmt'. Did you mean 'lstm'"),
        ({"cell_options": {"forget_bais": 1.0}}, "Did you mean 'forget_bias'"),
        ({"cell_options": [1]}, "option cell_options: .*\n.*\n  expected: names with values"),
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_impossible_values_are_refused_with_what_is_possible(options, message):
    with pytest.raises(ConfigError, match=message):
        Classifier(**options)


def test_limits_are_checked_whatever_the_dataclass():
    with pytest.raises(ConfigError, match="max_vocab"):
        check_values(dataclasses.replace(ClassifierOptions(), max_vocab=0))


def test_parameters_come_back_and_can_be_changed():
    model = Classifier(hidden_size=7, cell="gru", epochs=3)
    params = model.get_params()
    assert (params["hidden_size"], params["cell"], params["epochs"]) == (7, "gru", 3)
    assert Classifier(**params).get_params() == params
    assert model.set_params(hidden_size=9, cell="elman").get_params()["hidden_size"] == 9
    assert type(model.cell).__name__ == "Elman"
    with pytest.raises(ConfigError, match="hidden_size"):
        model.set_params(hiddensize=1)
    assert model.get_params()["hidden_size"] == 9
