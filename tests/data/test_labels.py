"""Numbers for labels."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carousel.data import LabelSet
from carousel.errors import CheckpointError, DataError

FEW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def test_several_labels_become_a_row_of_truths():
    labels = LabelSet(["b", "a", "c"])
    table = labels.encode_several([("c", "a"), (), ("b",)])
    assert table.tolist() == [[True, False, True], [False, False, False], [False, True, False]]
    assert [labels.decode_several(row) for row in table] == [("a", "c"), (), ("b",)]


def test_an_unknown_label_among_several_is_named_with_its_place():
    with pytest.raises(DataError, match=r"dev\.tsv:9: unknown label 'd'"):
        LabelSet(["a"]).encode_several([("a",), ("a", "d")], places=[("dev.tsv", 7), ("dev.tsv", 9)])
