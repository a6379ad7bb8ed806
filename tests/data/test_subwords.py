"""Bytes, and pieces of words."""

import copy
import json
import subprocess
import sys
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data import Tokenizer, Vocabulary
from carousel.data import subwords as module
from carousel.data.subwords import MAX_PIECES, Subwords, byte_name, text_of
from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError

TEXTS = ["the lower the better", "slower and slower they go", "low, lower, lowest!", "房间很大, 房间", "naïve café 😀"]
LEARNED = Tokenizer("subword", vocab_size=320).learn(TEXTS)
TEXT = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.text(st.sampled_from(list(" \n\tlower房间é😀<0xA>\0")))
    | st.sampled_from(TEXTS)
)


@pytest.mark.parametrize("tokenizer", [LEARNED, Tokenizer("byte")], ids=["subword", "byte"])
@given(text=TEXT)
@settings(max_examples=300)
def test_nothing_of_a_text_is_lost(tokenizer, text):
    tokens = tokenizer.tokenize(text)
    assert tokenizer.join(tokens) == text
    assert all(tokens)
    vocabulary = Vocabulary(tokenizer.tokens)
    assert 1 not in vocabulary.encode(tokens)  # no token is unknown
    assert vocabulary.decode(vocabulary.encode(tokens)) == tokens


def test_a_long_text_is_cut_as_the_library_cuts_it_whole():
    text = ("the lower the better, " * 9_000)[:190_000] + "  \n  slower"
    tokens = LEARNED.tokenize(text)
    assert "".join(tokens) == text.replace("\n", "<0x0A>")
    names = LEARNED.subwords.names
    assert tokens == [names[number] for number in LEARNED.subwords._build().encode(text).ids]


def test_a_word_without_end_is_cut_somewhere():
    text = "房" * 70_000
    assert LEARNED.join(LEARNED.tokenize(text)) == text


def test_frequent_words_become_one_piece():
    tokens = LEARNED.tokenize("the lower the better")
    assert tokens == ["the", " lower", " the", " better"]
    assert LEARNED.tokenize("房间") == ["房间"]
    assert LEARNED.tokenize("é") == ["é"]
    assert LEARNED.tokenize("\u00ff") == ["<0xC3>", "<0xBF>"]


def test_the_same_texts_give_the_same_pieces_in_every_process():
    code = (
        "from carousel.data import Tokenizer; import json, sys; "
        "texts = json.load(sys.stdin); print(Tokenizer('subword', vocab_size=400).learn(texts).subwords.to_text())"
    )
    texts = [f"{text} {number % 7} {text[::-1]}" for number, text in enumerate(TEXTS * 50)]
    here = Tokenizer("subword", vocab_size=400).learn(iter(texts)).subwords.to_text()
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True, check=True,
            env={"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )  # fmt: skip
        assert done.stdout.strip() == here
    assert Tokenizer("subword", vocab_size=400).learn(texts[::-1]).subwords.to_text() == here


def test_the_pieces_are_those_of_the_textbook():
    # The example of Sennrich et al.: es, est and lo come first. Words here take no blank, since each is a text.
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    assert Tokenizer("subword", vocab_size=260).learn(texts).tokens[256:] == ("es", "est", "lo", "low")


def test_fewer_pieces_are_learned_from_few_texts():
    tokenizer = Tokenizer("subword", vocab_size=8000).learn(["ab ab"])
    assert tokenizer.tokens[256:] == ("ab", " ab")
    assert len(Tokenizer("subword").learn([]).tokens) == 256


def test_case_can_be_dropped():
    assert Tokenizer("byte", lowercase=True).tokenize("Ab") == ["a", "b"]
    tokenizer = Tokenizer("subword", True, vocab_size=300).learn(["THE the The"])
    assert tokenizer.tokenize("THE") == ["the"]
    assert not Tokenizer("subword").lowercase


def test_half_a_surrogate_pair_is_no_character():
    for tokenizer in (LEARNED, Tokenizer("byte")):
        assert tokenizer.join(tokenizer.tokenize("a\ud800b")) == "a?b"
    assert Tokenizer("subword", vocab_size=300).learn(["a\ud800b"]).tokens


def test_the_other_units_have_nothing_to_learn():
    tokenizer = Tokenizer("word")
    assert tokenizer.learn(iter(())) is tokenizer
    assert tokenizer.tokens is None
    assert LEARNED.learn(["other"]) is LEARNED
    with pytest.raises(NotFittedError, match="call resolve"):
        Tokenizer("auto").learn([])
    for use in (lambda t: t.tokenize("a"), lambda t: t.to_dict()):
        with pytest.raises(NotFittedError, match="call learn"):
            use(Tokenizer("subword"))


@pytest.mark.parametrize("size", [0, 256, MAX_PIECES + 1])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ConfigError, match="vocab_size is not possible"):
        Tokenizer("subword", vocab_size=size).learn(["a"])


def test_an_error_of_the_texts_stays_what_it_is():
    def texts():
        yield "fine"
        raise DataError("line 7 is bad")

    with pytest.raises(DataError, match=r"^line 7 is bad$"):
        Tokenizer("subword").learn(texts())


def test_saved_pieces_come_back(tmp_path):
    LEARNED.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded == LEARNED
    assert hash(loaded) == hash(LEARNED)
    assert [loaded.tokenize(text) for text in TEXTS] == [LEARNED.tokenize(text) for text in TEXTS]
    assert copy.deepcopy(loaded).tokenize(TEXTS[0]) == LEARNED.tokenize(TEXTS[0])


def test_two_pairs_may_make_the_same_piece():
    pieces = Subwords([(97, 98), (98, 99), (256, 99), (97, 257)])  # ab, bc, ab+c, a+bc
    assert pieces.names[256:] == ("ab", "bc", "abc")
    assert Subwords.from_text(pieces.to_text()) == pieces
    assert pieces.cut("abc") == ["abc"]


BAD_MERGES = {
    "a list": [[1, 2]],
    "words": "t h",
    "an odd number": "1 2 3",
    "a piece that is not there": "97 256",
    "a cycle": "257 97 256 97",
    "a large number": "97 999999",
    "a huge number": "97 " + "9" * 5000,
    "a negative number": "-1 97",
    "two blanks": "97  98",
    "a blank at the end": "97 98 ",
    "other digits": "٩٧ ٩٨",
    "doubling": " ".join(f"{n} {n}" for n in [97, *range(256, 300)]),
    "too many": "97 98 " * MAX_PIECES + "97 98",
}


@pytest.mark.parametrize("merges", BAD_MERGES.values(), ids=BAD_MERGES)
def test_a_crafted_file_is_refused_soon(tmp_path, merges):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"unit": "subword", "lowercase": False, "vocab_size": 300, "merges": merges}))
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: "):
        Tokenizer.load(path)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "[" + "[]," * 400_000 + "[]]", '{"unit": "byte", "unit": 1}', "{}", " " * (1 << 23), "[],\n" * 300_000],
)
def test_a_file_of_something_else_is_refused_soon(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    start = time.process_time()
    with pytest.raises((CheckpointError, DataError), match=r"tokenizer\.json:"):
        Tokenizer.load(path)
    assert time.process_time() - start < 2
    tracemalloc.start()
    try:
        with pytest.raises((CheckpointError, DataError)):
            Tokenizer.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content) + 200_000


def test_the_largest_file_loads_soon(tmp_path):
    pairs = [(left, right) for left in range(256) for right in range(256)] + [(left, 97) for left in range(256, 65_792)]
    subwords = Subwords(pairs[: MAX_PIECES - 256])
    tokenizer = Tokenizer("subword", False, MAX_PIECES, subwords)
    tokenizer.save(tmp_path / "tokenizer.json")
    start = time.process_time()
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.join(loaded.tokenize("any text")) == "any text"
    assert time.process_time() - start < 2


def test_a_panic_of_the_library_becomes_an_error_of_ours(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_):
        raise PanicException("index out of bounds")

    monkeypatch.setattr(module, "_engine_of", panic)
    with pytest.raises(CheckpointError, match="PanicException: index out of bounds"):
        Subwords([(97, 98)]).cut("ab")
    with pytest.raises(CheckpointError, match="PanicException"):
        Subwords.learn(["ab"], 300)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_is_heard(monkeypatch, stop):
    def interrupt(_):
        raise stop

    monkeypatch.setattr(module, "_engine_of", interrupt)
    with pytest.raises(stop):
        Subwords([(97, 98)]).cut("ab")


def test_bytes_have_names_and_bad_ones_a_sign():
    names = [byte_name(byte) for byte in range(256)]
    assert len(set(names)) == 256
    assert text_of(["<0xFF>", "a"]) == "\ufffda"
