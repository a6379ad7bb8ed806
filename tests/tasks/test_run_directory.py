"""A run directory appears whole or not at all, and what it says is read without running anything."""

import json
import struct
from pathlib import Path

import pytest
import torch

import carousel
from carousel.errors import CheckpointError, ConfigError
from carousel.tasks.run_directory import (
    check_destination,
    publish,
    read_config,
    stage,
    write_config,
)
from carousel.tasks.weights import read_weights, write_weights


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def old_run(folder: Path) -> Path:
    folder.mkdir()
    write_config(folder / "config.yaml", {"task": "classify", "seed": 7})
    return folder


def test_configuration_comes_back_as_it_was(tmp_path):
    values = {"lr": 1e-05, "name": "Zürich", "none": None, "flag": True, "map": {"a": [1, 2.5]}, "text": "1e-3"}
    write_config(tmp_path / "config.yaml", values)
    assert read_config(tmp_path / "config.yaml").values == values


def test_numbers_are_read_as_people_write_them(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 1e-3\nweight_decay: 1E-5\nclip_norm: .5\nhidden_size: 64\nversion: 1.2.3\ndropout: 1.\n")
    assert read_config(file).values == {
        "lr": 0.001,
        "weight_decay": 1e-5,
        "clip_norm": 0.5,
        "hidden_size": 64,
        "version": "1.2.3",
        "dropout": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlr: [1,\n", r"c.yaml:3: not valid YAML"),
        ("- 1\n", r"c.yaml:1: not a configuration"),
        ("1: 2\n", r"c.yaml:1: not a configuration"),
        (
            "seed: 1\ncode: evil.py\n",
            r"c.yaml:2: a configuration cannot name code to run.\n  try: .*--code FILE.py --cell NAME",
        ),
        ("seed: 1\ntrainer:\n  logger:\n  - class_path: os.system\n", r"c.yaml:2: .*cannot name a class"),
        ("class_path: os.system\n", r"c.yaml:1: .*cannot name a class"),
        ("seed: !!python/object/apply:os.system ['touch owned']\n", r"c.yaml:1: not valid YAML"),
    ],
)
def test_bad_configurations_name_file_and_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config("c.yaml")
    assert names(tmp_path) == ["c.yaml"]


def test_configuration_that_is_not_text(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        read_config(tmp_path / "c.yaml")


def test_weights_come_back_with_their_description(tmp_path):
    weights = {"a.W_i": torch.randn(3, 2), "b": torch.arange(4)}
    write_weights(tmp_path / "m.safetensors", weights, task="classify", config={"seed": 1})
    back = read_weights(tmp_path / "m.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    raw = (tmp_path / "m.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]
    said = json.loads(header["carousel"])
    assert said == {"version": carousel.__version__, "task": "classify", "config": {"seed": 1}}


def test_damaged_weights_are_one_error(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(tmp_path / "m.safetensors")


def test_a_new_directory_takes_its_place_and_the_old_one_can_come_back(tmp_path):
    out = old_run(tmp_path / "run")
    staging = stage(out)
    (staging / "new").touch()
    publication = publish(staging, out)
    assert names(out) == ["new"]
    publication.rollback()
    assert names(tmp_path) == ["run"]
    assert read_config(out / "config.yaml").values["seed"] == 7


def test_the_old_directory_goes_when_the_new_one_stays(tmp_path):
    out = old_run(tmp_path / "run")
    staging = stage(out)
    (staging / "new").touch()
    publish(staging, out).commit()
    assert names(tmp_path) == ["run"]
    assert names(out) == ["new"]


def test_destination_that_is_free(tmp_path):
    check_destination(tmp_path / "new", overwrite=False)
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty", overwrite=False)


def test_destination_with_a_run_needs_a_word(tmp_path):
    out = old_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"a run is already there.\n  try:      --overwrite"):
        check_destination(out, overwrite=False)
    check_destination(out, overwrite=True)


def test_what_is_not_a_run_is_never_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(ConfigError, match="never overwritten"):
            check_destination(tmp_path / name, overwrite=True)


def test_working_directory_is_no_destination(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", "/"):
        with pytest.raises(ConfigError, match="cannot be a run directory"):
            check_destination(Path(name), overwrite=True)


def test_resume_needs_a_run_and_excludes_overwrite(tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"):
        check_destination(tmp_path / "new", overwrite=False, resume=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        check_destination(tmp_path / "new", overwrite=True, resume=True)
