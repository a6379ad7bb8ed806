"""The surnames that ship with the project."""

from collections import Counter
from pathlib import Path

from carousel.data import Tokenizer, read_labelled

FOLDER = Path(__file__).parents[2] / "examples" / "names"


def test_the_names_are_what_their_page_says():
    train, valid = (read_labelled(FOLDER / file) for file in ("train.tsv", "valid.tsv"))
    assert (len(train), len(valid)) == (16_209, 1_802)
    pairs = {(example.label, example.text) for example in train + valid}
    assert len(pairs) == 18_011
    assert len({label for label, _ in pairs}) == 18
    languages_of = Counter(name for _, name in pairs)
    assert len(languages_of) == 17_449
    assert sum(count > 1 for count in languages_of.values()) == 469
    assert sum(languages_of[example.text] > 1 for example in valid) == 114
    assert Tokenizer().resolve(example.text for example in train).unit == "char"


def test_the_licence_stands_beside_the_names():
    text = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "The MIT License (MIT)\n\nCopyright (c) 2017 Sean Robertson\n" in text
