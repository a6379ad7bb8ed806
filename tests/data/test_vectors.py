"""Word vectors from text files."""

import gzip
import tracemalloc

import numpy as np
import pytest

from carousel.data import Vocabulary, read_vectors
from carousel.errors import DataError

GLOVE = "the 0.1 0.2 -0.3\nof 1 2 3\nfilm 4e-1 5 6\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.mark.parametrize(
    "content",
    [
        GLOVE,
        "3 3\n" + GLOVE,
        "3 3\n" + GLOVE.replace("\n", " \n"),
        GLOVE.replace(" ", "\t"),
        "\ufeff" + GLOVE.replace("\n", "\r\n") + "\r\n",
        gzip.compress(GLOVE.encode()),
    ],
    ids=["GloVe", "word2vec", "blanks at the end", "tabs", "Windows", "gzip"],
)
def test_every_kind_of_file_is_read(write, content):
    vectors = read_vectors(write(content), ["film", "missing", "the", "film"])
    assert vectors.tokens == ("film", "the")
    assert np.array_equal(vectors.matrix, np.array([[0.4, 5, 6], [0.1, 0.2, -0.3]], np.float32))
    assert vectors.matrix.dtype == np.float32
    assert (vectors.coverage.found, vectors.coverage.wanted, vectors.coverage.rows) == (2, 3, 3)


def test_a_word_may_hold_blanks(write):
    vectors = read_vectors(write("the 1 2\n. . 3 4\nat name@domain.com 5 6\n"), [". .", ".", "at name@domain.com"])
    assert vectors.tokens == (". .", "at name@domain.com")
    assert vectors.matrix.tolist() == [[3, 4], [5, 6]]


def test_vectors_of_one_number_are_possible(write):
    assert read_vectors(write("2 1\na 0.5\nb 1\n"), ["a"]).matrix.tolist() == [[0.5]]


def test_the_vector_of_the_lower_case_form_is_the_last_resort_and_reported(write):
    vectors = read_vectors(write("the 1 2\nThe 3 4\nfilm 5 6\n"), ["The", "Film", "the", "OF"])
    assert vectors.tokens == ("The", "Film", "the")
    assert vectors.matrix.tolist() == [[3, 4], [5, 6], [1, 2]]
    assert vectors.coverage.found_in_lower_case == 1
    assert "1 by their lower-case form" in str(vectors.coverage)


def test_the_first_of_two_vectors_counts_and_that_is_reported(write):
    vectors = read_vectors(write("a 1 2\nb 3 4\na 5 6\n"), ["a"])
    assert vectors.matrix.tolist() == [[1, 2]]
    assert vectors.coverage.duplicates == 1
    assert "stand twice" in str(vectors.coverage)


def test_coverage_counts_types_and_occurrences(write):
    coverage = read_vectors(
        write(GLOVE), ["the", "film", "carousel", "horse"], counts={"the": 70, "film": 10, "carousel": 5, "horse": 15}
    ).coverage
    assert str(coverage) == "2 of 4 tokens (50.0 %) have a vector; 80.0 % of all occurrences"
    assert coverage.missing == ("horse", "carousel")
    assert (coverage.wanted_count, coverage.found_count) == (100, 80)


def test_nothing_wanted_or_found_is_no_error(write):
    for wanted in ([], ["carousel"]):
        vectors = read_vectors(write(GLOVE), wanted)
        assert (vectors.tokens, vectors.matrix.shape) == ((), (0, 3))
        assert str(vectors.coverage).startswith(f"0 of {len(wanted)} tokens")


def test_a_vocabulary_says_what_is_wanted(write):
    vocabulary = Vocabulary(["film", "carousel"])
    assert read_vectors(write(GLOVE), vocabulary.tokens).tokens == ("film",)


ERRORS = {
    "empty": ("", "vectors.txt: the file holds no vectors."),
    "a text": ("word\n", "vectors.txt:1: this is not a file of word vectors."),
    "only a header": ("0 3\n", "vectors.txt: the file holds no vectors."),
    "a header of 0": ("5 0\n", "vectors.txt:1: this is not a file of word vectors."),
    "too short": ("a 1 2\nb 1\n", "vectors.txt:2: the vector is too short.\n  got:      1 numbers where there are 2"),
    "too long": ("a 1 2\nb 1 2 3\n", "vectors.txt:2: the vector is too long.\n  got:      3 numbers where there are 2"),
    "not a number": ("a 1 2\nfilm 1 x\n", "vectors.txt:2: the vector holds what is not a number.\n  got:      'x'"),
    "NaN": ("film 1 nan\n", "vectors.txt:1: the vector holds what is not a number.\n  got:      'nan'"),
    "infinity": ("film 1 -inf\n", "got:      '-inf'"),
    "too large": ("film 1 1e39\n", "got:      '1e39'"),
    "two blanks": ("a 1 2\nfilm 1  2\n", "vectors.txt:2: "),
    "fewer than said": ("3 2\na 1 2\nb 1 2\n", "vectors.txt:3: the file holds another number of vectors.\n  got:      2, when"),
    "more than said": ("1 2\na 1 2\nb 1 2\n", "vectors.txt:3: the file holds another number of vectors.\n  got:      2, when"),
    "not UTF-8": (b"a 1 2\nb\xff 1 2\n", "vectors.txt:2: the text is not UTF-8."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_file_is_named_with_line(write, case):
    content, message = ERRORS[case]
    with pytest.raises(DataError) as caught:
        read_vectors(write(content), ["film"])
    assert message in str(caught.value)


def test_a_header_that_promises_much_costs_nothing(write):
    with pytest.raises(DataError, match="not a file of word vectors"):
        read_vectors(write("999999999 999999999\na 1\n"), ["a"])


def test_only_what_is_wanted_is_kept(write):
    numbers = " ".join(["0.123456"] * 50)
    path = write("".join(f"word{n} {numbers}\n" for n in range(20_000)))  # 9 MB of text, 4 MB of numbers
    tracemalloc.start()
    try:
        vectors = read_vectors(path, [f"word{n}" for n in range(0, 20_000, 1000)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert vectors.matrix.shape == (20, 50)
    assert peak < 500_000
