import hashlib
import json
import math
import os
import random
import re
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.errors import CheckpointError
from carousel.training import load_checkpoint, save_checkpoint
from carousel.training.checkpoint import load_weights, one_before
from carousel.training.manifest import MAX_JSON_BYTES
from faults import intercept

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


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "trainer.json", "manifest.json"])
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


def reseal(directory, **contents):
    """Change files of a checkpoint as somebody would who knows how the manifest is made."""
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"]
    for name, data in contents.items():
        name = name.replace("_", ".")
        (directory / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest}, indent=1) + "\n")


def test_the_manifest_can_be_made_by_anybody(tmp_path):
    save_checkpoint(tmp_path / "last", {"epoch": 1})
    before = (tmp_path / "last" / "manifest.json").read_bytes()
    reseal(tmp_path / "last")
    assert (tmp_path / "last" / "manifest.json").read_bytes() == before


def test_a_checkpoint_of_a_later_version_says_so(tmp_path):
    save_checkpoint(tmp_path / "last", {})
    header = json.loads((tmp_path / "last" / "trainer.json").read_text())
    reseal(tmp_path / "last", trainer_json=json.dumps(header | {"version": 99}).encode())
    with pytest.raises(CheckpointError, match="has version 99; this carousel reads version 2"):
        load_checkpoint(tmp_path / "last")


def test_a_manifest_of_a_later_version_says_so(tmp_path):
    save_checkpoint(tmp_path / "last", {})
    manifest = tmp_path / "last" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(CheckpointError, match="its own hash"):  # a flipped digit is no later version
        load_checkpoint(tmp_path / "last")
    content = json.loads(manifest.read_text())
    del content["sha256"]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    manifest.write_text(json.dumps(content | {"sha256": digest}, indent=1) + "\n")
    with pytest.raises(CheckpointError, match="manifest of version 7; this carousel reads 1"):
        load_checkpoint(tmp_path / "last")


def test_a_tensor_that_the_header_names_must_be_there(tmp_path):
    save_checkpoint(tmp_path / "last", {"state_dict": {"w": torch.randn(2)}})
    header = json.loads((tmp_path / "last" / "trainer.json").read_text())
    header["state"]["state_dict"] = {"$weights": ["w", "v"]}
    reseal(tmp_path / "last", trainer_json=json.dumps(header).encode())
    with pytest.raises(CheckpointError, match="KeyError: 'v'"):
        load_checkpoint(tmp_path / "last")


class CrashError(BaseException):
    """The process is gone: nothing is cleaned up after it."""


def save_until(number, monkeypatch, directory, checkpoint, **options):
    """Save, but crash before operation `number`; return whether it came to that."""
    seen = []

    def hook(operation):
        seen.append(operation)
        if len(seen) > number:
            raise CrashError

    with monkeypatch.context() as patch:
        intercept(hook, patch.setattr)
        try:
            save_checkpoint(directory, checkpoint, **options)
        except CrashError:
            return True
    return False


@pytest.mark.parametrize("keep", [False, True])
def test_a_crash_at_any_operation_leaves_a_whole_checkpoint(tmp_path, monkeypatch, keep):
    crashes = 0
    epochs = set()
    for number in range(1000):
        directory = tmp_path / str(number) / "last"
        for epoch in (1, 2):
            save_checkpoint(directory, {"epoch": epoch}, keep=keep)
        if not save_until(number, monkeypatch, directory, {"epoch": 3}, keep=keep):
            break
        crashes += 1
        if not keep:  # then `load_checkpoint`, which knows nothing of this, must not be needed to find it
            from carousel.files import settle_directory

            settle_directory(directory)
        epochs.add(load_checkpoint(directory)["epoch"])
        if keep and one_before(directory).exists() and len(list(one_before(directory).iterdir())) == 4:
            assert load_checkpoint(one_before(directory))["epoch"] in (1, 2)
    assert crashes >= (22 if keep else 15)  # four files, each opened, written and flushed; directories; renames
    assert epochs == {2, 3}


FLIPS = 10_000 if os.environ.get("CAROUSEL_TEST_NIGHTLY") else 1_200


def test_every_flip_and_every_cut_of_a_byte_is_found(tmp_path):
    directory = tmp_path / "last"
    tree = {
        "state_dict": {"w": torch.randn(5, 4), "b": torch.randn(4)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(5, 4), "step": torch.tensor(3.0)}}}],
        "callbacks": {"carousel": {"run": {"history": [{"epoch": 1, "train_loss": 0.5}], "monitor": "loss"}}},
    }
    save_checkpoint(directory, tree)
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["manifest.json", "model.safetensors", "trainer.json", "trainer.safetensors"]
    whole = {name: (directory / name).read_bytes() for name in names}
    chance = random.Random(0)
    found = dict.fromkeys(names, 0)
    for round_ in range(FLIPS):
        name = names[round_ % len(names)]
        data = bytearray(whole[name])
        place = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place] = (data[place] + chance.randrange(1, 256)) % 256
        elif kind == 2:
            del data[place:]
        else:
            data.insert(place, chance.randrange(256))
        (directory / name).write_bytes(data)
        with pytest.raises(CheckpointError):
            load_checkpoint(directory)
        found[name] += 1
        if name in ("model.safetensors", "manifest.json"):
            with pytest.raises(CheckpointError):
                load_weights(directory)
        (directory / name).write_bytes(whole[name])
    assert same(load_checkpoint(directory)["callbacks"], tree["callbacks"])
    assert min(found.values()) >= FLIPS // 4


def tensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


CRAFTED = {
    "a huge shape": tensors_file({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)),
    "a shape that overflows": tensors_file(
        {"w": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "a huge shape of nothing": tensors_file({"w": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0], "data_offsets": [0, 0]}}),
    "an unknown type": tensors_file({"w": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "a type of another size": tensors_file({"w": {"dtype": "I64", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "a type that torch lacks": tensors_file({"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, bytes(3)),
    "offsets outside": tensors_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(4)),
    "offsets backwards": tensors_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    "a negative shape": tensors_file({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    "a deep header": tensors_file(b'{"w":' * 50_000 + b"1" + b"}" * 50_000),
    "a header longer than the file": struct.pack("<Q", 1 << 62) + b"{}",
    "a header that is a list": tensors_file([1, 2]),
    "nothing": b"",
}
# What may be read all the same: there is nothing in it.
EMPTY = {"a huge shape of nothing"}


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_tensors_are_an_error_of_ours_and_take_no_memory(tmp_path, kind):
    directory = tmp_path / "last"
    save_checkpoint(directory, {"state_dict": {"w": torch.randn(1)}})
    reseal(directory, model_safetensors=CRAFTED[kind])
    tracemalloc.start()
    try:
        for load in (load_checkpoint, load_weights):
            try:
                weights = load(directory)
            except CheckpointError:
                continue
            assert kind in EMPTY
            assert all(tensor.numel() == 0 for tensor in weights.get("state_dict", weights).values())
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def state_of(text):
    return b'{"format": "carousel-checkpoint", "version": 2, "state": {"a": ' + text + b"}}"


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        state_of(b"[" * 50_000 + b"]" * 50_000),
        state_of(b'{"$tuple": ' * 20_000 + b"[]" + b"}" * 20_000),
        state_of(b'{"$tensor": []}'),
        state_of(b'{"$tensor": "missing"}'),
        state_of(b'{"$weights": 7}'),
        state_of(b'{"$weights": [[]]}'),
        state_of(b'{"$float": [1]}'),
        state_of(b'{"$float": "1e5x"}'),
        state_of(b'{"$set": [[]]}'),
        state_of(b'{"$dict": [[1]]}'),
        state_of(b'{"$dict": 3}'),
        state_of(b'{"$tuple": "abc"}'),
        state_of(b'{"$ordered": [[{"$set": []}, 1]]}'),
        state_of(b'{"$eval": []}'),
        state_of(b'{"$tuple": [], "b": 1}'),
        state_of(b"1" * 5000),
        b'{"format": "carousel-checkpoint", "version": 2, "state": []}',
        b'{"format": "other", "version": 2, "state": {}}',
        b"\xff\xfe\x00",
        b" " * (MAX_JSON_BYTES + 1),
    ],
    ids=lambda data: data[62:90].decode(errors="replace") or data[:8].decode(errors="replace"),
)
def test_a_crafted_header_is_an_error_of_ours(tmp_path, data):
    directory = tmp_path / "last"
    save_checkpoint(directory, {})
    reseal(directory, trainer_json=data)
    with pytest.raises(CheckpointError, match=r"trainer\.json"):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"format": "carousel-manifest"}',
        b'{"format": "carousel-manifest", "version": 1, "files": [], "sha256": ""}',
        b" " * 100_000,
    ],
    ids=lambda data: data[:60].decode(),
)
def test_a_crafted_manifest_is_an_error_of_ours(tmp_path, manifest):
    save_checkpoint(tmp_path / "last", {})
    (tmp_path / "last" / "manifest.json").write_bytes(manifest)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(tmp_path / "last")


def test_a_file_of_a_checkpoint_is_no_link_and_no_pipe(tmp_path):
    save_checkpoint(tmp_path / "last", {})
    rest = tmp_path / "last" / "trainer.json"
    rest.rename(tmp_path / "elsewhere.json")
    rest.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match="not a plain file"):
        load_checkpoint(tmp_path / "last")
    rest.unlink()
    os.mkfifo(rest)
    with pytest.raises(CheckpointError, match="not a plain file"):  # and does not wait for somebody to write
        load_checkpoint(tmp_path / "last")


def test_reading_takes_about_twice_the_room_of_the_file(tmp_path):
    save_checkpoint(tmp_path / "last", {"state_dict": {"w": torch.zeros(5_000_000)}})
    tracemalloc.start()
    load_weights(tmp_path / "last")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * 20_000_000


def test_a_panic_of_the_reader_is_an_error_of_ours(tmp_path, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_):
        raise PanicException("index out of bounds")

    save_checkpoint(tmp_path / "last", {})
    monkeypatch.setattr("safetensors.torch.load", panic)
    with pytest.raises(CheckpointError, match="index out of bounds"):
        load_checkpoint(tmp_path / "last")
    monkeypatch.setattr("safetensors.torch.load", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        load_checkpoint(tmp_path / "last")


def test_what_could_not_be_read_again_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="too long"):
        save_checkpoint(tmp_path / "last", {"history": "x" * (MAX_JSON_BYTES + 1)})
    assert not (tmp_path / "last").exists()
