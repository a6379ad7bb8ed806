"""Numbers for tokens."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carousel.data import Vocabulary, vocabulary
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


def test_counting_forgets_the_rarest_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(vocabulary, "MAX_COUNTED", 1000)
    sequences = [[f"often{n % 20}", f"sometimes{n % 200}", f"once{n}"] for n in range(20_000)]
    counted = Vocabulary.count(iter(sequences), max_size=220)
    assert set(counted.tokens[2:]) == {f"often{n}" for n in range(20)} | {f"sometimes{n}" for n in range(200)}
    assert len(Vocabulary.count(iter(sequences))) < 1100


def test_a_large_vocabulary_comes_back(tmp_path):
    tokens = [f'token {n} "é" \\ [,{{' for n in range(60_000)]
    saved = Vocabulary(tokens)
    saved.save(tmp_path / "vocabulary.json")
    assert (tmp_path / "vocabulary.json").stat().st_size > 1 << 20
    assert Vocabulary.load(tmp_path / "vocabulary.json") == saved


PADDED = json.dumps({"tokens": ["<pad>", "<unk>", *map(str, range(200_000))]})


@pytest.mark.parametrize(
    "content",
    [
        "[" + "[]," * 600_000 + "[]]",
        '{"tokens": [' + "[]," * 600_000 + "[]]}",
        PADDED[:-1],
        PADDED[:-2],
        PADDED + "x",
        PADDED.replace(', "9"', ', 9'),
        PADDED.replace('"199999"', '"7"'),
        PADDED.replace("tokens", "labels"),
        PADDED.replace('"11"', '"a\nb"'),
    ],
)  # fmt: skip
def test_a_large_file_of_something_else_costs_little_memory(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"vocabulary\.json: this is not a saved vocabulary"):
            Vocabulary.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content) + 100 * content.count('"')  # strings themselves cost more than their text
