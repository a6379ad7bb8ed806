"""Numbers for tokens and labels."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carousel.data import LabelSet, Vocabulary
from carousel.errors import CheckpointError, ConfigError, DataError

FEW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOKENS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(["<pad>", "<unk>"])


def test_frequent_tokens_come_first_and_equals_in_order():
    vocabulary = Vocabulary.count([["b", "c", "a"], ["c", "b", "d"]])
    assert vocabulary.tokens == ["<pad>", "<unk>", "b", "c", "a", "d"]
    assert len(vocabulary) == 6
    assert Vocabulary.count([["d", "c"], ["b", "c"], ["b", "a"]]) == vocabulary


def test_rare_tokens_and_those_beyond_the_size_are_unknown():
    sequences = [["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"]]
    assert Vocabulary.count(sequences, min_count=2).tokens[2:] == ["a", "b", "c"]
    assert Vocabulary.count(sequences, max_size=2).tokens[2:] == ["a", "b"]
    assert Vocabulary.count(sequences, min_count=2, max_size=2).encode(["a", "c", "d"]) == [2, 1, 1]


def test_a_token_spelled_like_padding_is_unknown():
    vocabulary = Vocabulary.count([["<pad>", "<unk>", "<pad>", "a"]])
    assert vocabulary.tokens == ["<pad>", "<unk>", "a"]
    assert vocabulary.encode(["<pad>", "<unk>", "a"]) == [1, 1, 2]
    assert "<pad>" not in vocabulary
    assert "a" in vocabulary
    assert 2 not in vocabulary


@pytest.mark.parametrize("tokens", [["a", "a"], ["<pad>"], ["<unk>"]])
def test_a_token_twice_is_refused(tokens):
    with pytest.raises(ConfigError, match="a token stands there twice"):
        Vocabulary(tokens)


@pytest.mark.parametrize("option", ["min_count", "max_size"])
def test_a_size_below_one_is_refused(option):
    with pytest.raises(ConfigError, match=f"{option} must be positive"):
        Vocabulary.count([["a"]], **{option: 0})


@given(sequences=st.lists(st.lists(TOKENS)), min_count=st.integers(1, 3), max_size=st.none() | st.integers(1, 5))
@FEW
def test_a_saved_vocabulary_comes_back_and_no_token_becomes_padding(tmp_path, sequences, min_count, max_size):
    vocabulary = Vocabulary.count(sequences, min_count=min_count, max_size=max_size)
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary
    assert loaded.tokens == vocabulary.tokens
    for sequence in sequences:
        ids = loaded.encode(sequence)
        assert ids == vocabulary.encode(sequence)
        assert 0 not in ids
        known = [token if token in loaded else "<unk>" for token in sequence]
        assert loaded.decode(ids) == known


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"tokens": "ab"},
        {"tokens": []},
        {"tokens": ["a", "b"]},
        {"tokens": ["<unk>", "<pad>"]},
        {"tokens": ["<pad>", "<unk>", "a", "a"]},
        {"tokens": ["<pad>", "<unk>", ""]},
        {"tokens": ["<pad>", "<unk>", 7]},
        {"tokens": ["<pad>", "<unk>", ["a"]]},
        {"tokens": ["<pad>", "<unk>"], "more": 1},
    ],
)
def test_something_else_is_not_a_saved_vocabulary(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"vocabulary\.json: this is not a saved vocabulary"):
        Vocabulary.load(path)


def test_a_missing_vocabulary_is_said(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_labels_are_sorted_by_number_only_if_all_are_numbers():
    assert LabelSet(["10", "-1", "9", "9"]).names == ("-1", "9", "10")
    assert LabelSet(["01", "1", "+1"]).names == ("+1", "01", "1")
    assert LabelSet(["10", "9", "b"]).names == ("10", "9", "b")
    assert LabelSet(["1" * 5000, "2"]).names == ("1" * 5000, "2")


def test_an_unknown_label_is_named_with_its_place_and_the_nearest_one():
    labels = LabelSet(["negative", "positive"])
    with pytest.raises(DataError) as caught:
        labels.encode("postive", path="dev.tsv", line=7)
    assert str(caught.value) == (
        "dev.tsv:7: unknown label 'postive'. Did you mean 'positive'?\n"
        "  expected: one of negative, positive\n"
        "  try:      correct the label, or train on data that has it"
    )
    with pytest.raises(DataError, match="and 10 more"):
        LabelSet(map(str, range(30))).encode("x")


def test_no_labels_are_refused():
    with pytest.raises(DataError, match="there are no labels"):
        LabelSet([])


@given(labels=st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@FEW
def test_saved_labels_come_back(tmp_path, labels):
    saved = LabelSet(labels)
    saved.save(tmp_path / "labels.json")
    loaded = LabelSet.load(tmp_path / "labels.json")
    assert loaded == saved
    assert [loaded.decode(loaded.encode(label)) for label in saved.names] == list(saved.names)
    assert set(saved.names) == labels
    assert all(label in loaded for label in labels)
    assert len(loaded) == len(labels)


@pytest.mark.parametrize("content", [None, {"labels": []}, {"labels": ["b", "a"]}, {"labels": ["a", "a"]}, {"names": ["a"]}])
def test_something_else_is_not_a_saved_set_of_labels(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"labels\.json: this is not a saved set of labels"):
        LabelSet.load(path)
