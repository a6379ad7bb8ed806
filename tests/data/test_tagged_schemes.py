"""Spans as conlleval's description has them, stated here once more; schemes convert into each other without loss."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data.tagged import TAG_SCHEMES, convert, faults, guess_scheme, spans
from carousel.errors import ConfigError, DataError


def chunks(tags):
    """The chunks of a sentence, by the two tables of conlleval: where one ends and where one starts, from neighbours alone."""
    ends = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("E", "E"), ("E", "I"), ("E", "O"), ("E", "B")}
    starts = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I"), ("E", "E"), ("E", "I"), ("O", "E"), ("E", "B")}
    split = [("O", "")] + [(tag[0], tag[2:]) for tag in tags] + [("O", "")]
    found, begin = [], None
    for at, ((before, kind_before), (now, kind)) in enumerate(itertools.pairwise(split)):
        other = kind_before != kind
        if before != "O" and ((before, now) in ends or other):
            found.append((begin, at, kind_before))
        if now != "O" and ((before, now) in starts or other):
            begin = at
    return found


TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "E-X", "B-Y", "I-Y", "E-Y"]), max_size=12)


@settings(deadline=None, max_examples=200)
@given(TAGS)
def test_spans_are_those_of_conlleval(tags):
    assert spans(tags, "bioes") == chunks(tags)
    two = ["I" + tag[1:] if tag[0] == "E" else tag for tag in tags]
    for scheme in ("bio", "iob1"):
        assert spans(two, scheme) == chunks(two)


def test_every_short_sequence_without_types():
    for length in range(5):
        for letters in itertools.product("BIEO", repeat=length):
            assert spans(letters, "bioes") == chunks([letter if letter == "O" else letter + "-" for letter in letters])


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("O I-X I-X", [(1, 3, "X")]),
        ("B-X I-Y I-Y O", [(0, 1, "X"), (1, 3, "Y")]),
        ("I-X B-X", [(0, 1, "X"), (1, 2, "X")]),
        ("O O B-X", [(2, 3, "X")]),
        ("I-X O I-X", [(0, 1, "X"), (2, 3, "X")]),
        ("B-A-B I-A-B", [(0, 2, "A-B")]),
        ("", []),
    ],
)
def test_nasty_cases(tags, wanted):
    assert spans(tags.split()) == wanted


def test_closed_schemes():
    assert spans(["B-X", "I-X", "E-X", "S-X"], "bioes") == [(0, 3, "X"), (3, 4, "X")]
    assert spans(["B-X", "L-X", "U-X"], "bioes") == [(0, 2, "X"), (2, 3, "X")]
    assert spans(["B-X", "S-X", "I-X"], "bioes") == [(0, 1, "X"), (1, 2, "X"), (2, 3, "X")]
    assert spans(["B-X", "O", "E-X", "E-X"], "bioes") == [(0, 1, "X"), (2, 3, "X"), (3, 4, "X")]
    assert spans(list("BMESMB"), "bmes") == [(0, 3, ""), (3, 4, ""), (4, 5, ""), (5, 6, "")]


LETTERS = {"bio": "BI", "iob1": "BI", "io": "I", "bioes": "BIES", "bmes": "BMES"}


@st.composite
def any_tags(draw, scheme):
    return draw(
        st.lists(st.sampled_from(["O", *(f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in "XY")]), max_size=9)
    )


@pytest.mark.parametrize("source", TAG_SCHEMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_schemes_convert_without_loss(source, data):
    tags = data.draw(any_tags(source))
    wanted = spans(tags, source)
    for target in TAG_SCHEMES:
        written = convert(tags, source, target)
        if target != "io":
            assert spans(written, target) == wanted
        assert not faults(written, target)
        assert {tag[0] for tag in written} <= {*LETTERS[target], "O"}
        assert convert(written, target, target) == written
    # What is not at fault is what the scheme itself writes.
    assert (not faults(tags, source)) == (convert(tags, source, source) == tags)


def test_faults_are_what_the_rules_of_a_chain_forbid():
    torch = pytest.importorskip("torch")
    from carousel.structured import SCHEMES

    for scheme, build in SCHEMES.items():
        labels = ["O", *(f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in "XY")]
        rules = build(labels)
        generator = torch.Generator().manual_seed(5)
        for length in (1, 2, 3, 4):
            for path in torch.randint(len(labels), (60, length), generator=generator).tolist():
                tags = [labels[k] for k in path]
                assert bool(rules.violations(path)) == bool(faults(tags, scheme)), (scheme, tags)


def test_letters_of_bilou_are_no_faults():
    assert faults(["B-X", "I-X", "L-X", "U-Y"], "bioes") == []
    assert convert(["B-X", "I-X", "L-X", "U-Y"], "bioes", "bio") == ["B-X", "I-X", "I-X", "B-Y"]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (["B-X I-X O", "O B-Y"], "bio"),
        (["B-X I-X O I-X", "B-X O", "B-X"], "bio"),
        (["I-X I-X O", "I-Y B-Y"], "iob1"),
        (["I-X O I-Y"], "iob1"),
        (["B I I O"], "bio"),
        (["B-X E-X S-X"], "bioes"),
        (["B-X L-X O U-Y"], "bioes"),
        (["B-X M-X E-X O"], "bmes"),
        (["B E S S"], "bmes"),
        (["B M E"], "bmes"),
        (["NOUN VERB"], None),
        (["B-X NN"], None),
        (["B-X I O"], None),
        (["O O"], None),
        (["B- I-"], None),
        ([], None),
    ],
)
def test_schemes_are_guessed(rows, wanted):
    assert guess_scheme([row.split() for row in rows]) == wanted


def test_what_is_no_tag_is_refused():
    for tag in ("NN", "X-B", "b-X", "", "B-", "-X", "E-X"):
        with pytest.raises(DataError, match="not a tag of scheme bio"):
            spans(["O", tag])
    for call in (lambda: spans([], "bilou"), lambda: convert([], "bio", "x"), lambda: faults([], "y")):
        with pytest.raises(ConfigError, match="unknown scheme"):
            call()
