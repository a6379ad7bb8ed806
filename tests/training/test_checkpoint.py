import json
import math
import os
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.errors import CheckpointError
from carousel.training import files, load_checkpoint, save_checkpoint

KEYS = st.one_of(st.text(max_size=4), st.integers(), st.sampled_from(["$tensor", "$dict", "a/b", "0"]))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sets(st.integers(), max_size=3)
)


def nested(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
    )


def same(left, right):
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (left != left and right != right)
    return left == right


@settings(max_examples=60, deadline=None)
@given(tree=st.recursive(LEAVES, nested, max_leaves=12))
def test_what_is_saved_comes_back_with_its_types(tmp_path_factory, tree):
    directory = tmp_path_factory.mktemp("checkpoint") / "last"
    save_checkpoint(directory, {"tree": tree})
    assert same(load_checkpoint(directory)["tree"], tree)


def test_tensors_of_every_kind_come_back(tmp_path):
    tied = torch.randn(3, 4)
    tree = {
        "half": torch.randn(2, dtype=torch.float16),
        "brain": torch.randn(2).bfloat16(),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 5),
        "transposed": tied.T,
        "slice": tied[1:, ::2],
        "tied": [tied, tied],
        "nan": torch.tensor([math.nan, math.inf]).nan_to_num(nan=1.0),
        0: torch.tensor(1),
        "0": torch.tensor(2),
    }
    save_checkpoint(tmp_path / "last", {"tree": tree})
    assert same(load_checkpoint(tmp_path / "last")["tree"], tree)


def test_the_weights_are_a_file_of_their_own_under_their_own_names(tmp_path):
    from safetensors.torch import load_file

    weights = OrderedDict([("b.weight", torch.randn(3)), ("a", torch.randn(2, 2))])
    save_checkpoint(tmp_path / "last", {"state_dict": weights, "epoch": 3})
    assert sorted(load_file(tmp_path / "last" / "model.safetensors")) == ["a", "b.weight"]
    assert same(load_checkpoint(tmp_path / "last")["state_dict"], weights)


@pytest.mark.parametrize("value", [object(), np.float32(1), torch.Size([1]), b"bytes", torch.eye(2).to_sparse()])
def test_a_type_that_needs_pickle_is_refused_with_its_path(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"at callbacks/mine/1(.|\n)*got:(.|\n)*try:"):
        save_checkpoint(tmp_path / "last", {"callbacks": {"mine": [0, value]}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "trainer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    directory = tmp_path / "last"
    save_checkpoint(directory, {"state_dict": {"w": torch.randn(40)}, "optimizer": {0: torch.randn(40)}})
    data = (directory / name).read_bytes()
    if damage == "missing":
        (directory / name).unlink()
    else:
        (directory / name).write_bytes({"empty": b"", "cut": data[:-7], "noise": b"\x80\x04" + os.urandom(50)}[damage])
    with pytest.raises(CheckpointError, match=rf"last is damaged or incomplete: {re.escape(name)}(.|\n)*got:(.|\n)*try:"):
        load_checkpoint(directory)


def test_a_checkpoint_of_a_later_version_says_so(tmp_path):
    save_checkpoint(tmp_path, {})
    header = json.loads((tmp_path / "trainer.json").read_text())
    (tmp_path / "trainer.json").write_text(json.dumps(header | {"version": 99}))
    with pytest.raises(CheckpointError, match="has version 99; this carousel reads version 1"):
        load_checkpoint(tmp_path)


def test_a_tensor_that_the_header_names_must_be_there(tmp_path):
    save_checkpoint(tmp_path, {"state_dict": {"w": torch.randn(2)}})
    header = json.loads((tmp_path / "trainer.json").read_text())
    header["state"]["state_dict"] = {"$weights": ["w", "v"]}
    (tmp_path / "trainer.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="KeyError: 'v'"):
        load_checkpoint(tmp_path)


class CrashError(Exception):
    pass


@pytest.mark.parametrize("when", range(10))
def test_a_crash_at_any_moment_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch, when):
    directory = tmp_path / "last"
    save_checkpoint(directory, {"epoch": 1})
    calls = []

    def crashing(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) > when:
                raise CrashError
            return function(*arguments, **options)

        return call

    for owner, name in [(files, "write_flushed"), (files, "flush_directory"), (os, "rename"), (files.shutil, "rmtree")]:
        monkeypatch.setattr(owner, name, crashing(getattr(owner, name)))
    monkeypatch.setattr("carousel.training.checkpoint.write_flushed", files.write_flushed)
    crashed = False
    try:
        save_checkpoint(directory, {"epoch": 2})
    except CrashError:
        crashed = True
    monkeypatch.undo()
    renamed = when >= 6  # three files, the directory, old aside, new in place
    assert crashed == (when < len(calls))
    assert load_checkpoint(directory)["epoch"] == (2 if renamed or when == 5 else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
