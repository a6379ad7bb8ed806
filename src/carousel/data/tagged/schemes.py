"""How spans are written as tags: BIO, IOB1, BIOES, BMES, IO; spans read from tags as ``conlleval`` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from carousel.errors import ConfigError, DataError, explain, unknown_name

__all__ = ["TAG_SCHEMES", "Span", "convert", "faults", "guess_scheme", "spans"]

#: Where it begins, where it ends (not included), and its type; the type is empty where tags have none.
Span = tuple[int, int, str]

# What each letter says of its token. BILOU's U and L are the S and E of BIOES.
_LETTERS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
_WRITTEN = {"bio": "BI", "iob1": "BI", "io": "I", "bioes": "BIESLU", "bmes": "BMES"}


def spans(tags: Sequence[str], scheme: str = "bio") -> list[Span]:
    """The spans that tags mean, as ``conlleval`` [1] counts them, whatever order the tags stand in.

    A span begins at ``B`` and ``S``; at ``I`` and ``E`` too where none goes on: behind ``O``, ``E`` or ``S``, at the
    beginning, and behind a tag of another type. It ends before the next one begins and before ``O``; the last may end with the
    sentence.

    Args:
        tags: of one sentence: ``O``, a letter, or a letter, a hyphen and a type.
        scheme: one of `TAG_SCHEMES`, which says what letters there may be.

    Raises:
        ConfigError: there is no such scheme.
        DataError: a tag is not one of the scheme's.

    Example:
        >>> spans(["B-NP", "I-NP", "I-VP", "O", "I-NP"])
        [(0, 2, 'NP'), (2, 3, 'VP'), (4, 5, 'NP')]
        >>> spans(["B", "E", "S"], "bmes")
        [(0, 2, ''), (2, 3, '')]

    References:
        [1] Tjong Kim Sang and Buchholz, "Introduction to the CoNLL-2000 Shared Task: Chunking", 2000.
    """
    letters = _known(scheme)
    found: list[Span] = []
    begin, inside, kind = 0, False, ""
    for at, tag in enumerate(tags):
        letter, now = _parsed(tag, scheme, letters)
        if inside and (letter in "OBS" or now != kind):
            found.append((begin, at, kind))
            inside = False
        if letter != "O":
            if not inside:
                begin, inside, kind = at, True, now
            if letter in "ES":
                found.append((begin, at + 1, kind))
                inside = False
    if inside:
        found.append((begin, len(tags), kind))
    return found


def convert(tags: Sequence[str], source: str, target: str) -> list[str]:
    """The same spans, written in another scheme. Tags that do not fit together are read as :func:`spans` does.

    ``io`` cannot tell two spans of one type that touch from one.

    Args:
        tags: of one sentence.
        source: the scheme they are in.
        target: the scheme wanted; the same one repairs.

    Raises:
        ConfigError: there is no such scheme.
        DataError: a tag is not one of `source`.

    Example:
        >>> convert(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"], "iob1", "bioes")
        ['B-PER', 'E-PER', 'O', 'S-LOC', 'S-LOC']
        >>> convert(["O", "I-NP"], "bio", "bio")
        ['O', 'B-NP']
    """
    _known(target)
    written = ["O"] * len(tags)
    before: Span = (-1, -1, "")
    for span in spans(tags, source):
        begin, end, kind = span
        touching = before[1] == begin and before[2] == kind
        suffix = "-" + kind if kind else ""
        written[begin:end] = [letter + suffix for letter in _WRITERS[target](end - begin, touching)]
        before = span
    return written


def faults(tags: Sequence[str], scheme: str) -> list[int]:
    """The places of tags that the scheme does not allow there: those that :func:`convert` to the same scheme changes.

    Args:
        tags: of one sentence.
        scheme: one of `TAG_SCHEMES`.

    Raises:
        ConfigError: there is no such scheme.
        DataError: a tag is not one of the scheme's.

    Example:
        >>> faults(["O", "I-NP", "I-NP", "I-VP"], "bio")
        [1, 3]
    """
    right = convert(tags, scheme, scheme)
    spelled = {"L": "E", "U": "S"} if scheme == "bioes" else {}
    return [at for at, (a, b) in enumerate(zip(tags, right, strict=True)) if spelled.get(a[:1], a[:1]) + a[1:] != b]


def guess_scheme(sequences: Iterable[Sequence[str]]) -> str | None:
    """The scheme that tags are written in; None if they do not mark spans.

    The letters tell, and between BIO and IOB1, how many tags each of the two would not allow. Spans without types are taken
    for such only if there are no other tags than ``O`` and letters.

    Args:
        sequences: the tags of each sentence.

    Example:
        >>> guess_scheme([["B-NP", "I-NP", "O"]]), guess_scheme([["I-NP", "B-NP", "O"]]), guess_scheme([["NOUN", "VERB"]])
        ('bio', 'iob1', None)
    """
    rows = {tuple(tags) for tags in sequences}
    marks = {tag for tags in rows for tag in tags} - {"O"}
    letters = {tag.partition("-")[0] for tag in marks}
    typed = {"-" in tag[1:] for tag in marks}
    if not letters or not letters <= set(_LETTERS) or len(typed) > 1 or any(tag[-1] == "-" for tag in marks):
        return None
    if letters <= {"B", "I"}:
        wrong = {scheme: sum(len(faults(tags, scheme)) for tags in rows) for scheme in ("bio", "iob1")}
        return min(wrong, key=wrong.__getitem__)
    if "M" in letters:
        return "bmes" if letters <= set("BMES") else None
    # Without a long span nothing but the rest tells: words leave no gaps.
    closed = not letters & set("ILU") and not any("O" in tags for tags in rows)
    return "bmes" if closed and typed == {False} else "bioes"


def _one_by_one(first: str, inner: str, last: str, single: str) -> Callable[[int, bool], list[str]]:
    return lambda count, _: [single] if count == 1 else [first, *[inner] * (count - 2), last]


_WRITERS: dict[str, Callable[[int, bool], list[str]]] = {
    "bio": lambda count, _: ["B", *"I" * (count - 1)],
    "bioes": _one_by_one("B", "I", "E", "S"),
    "bmes": _one_by_one("B", "M", "E", "S"),
    "io": lambda count, _: ["I"] * count,
    "iob1": lambda count, touching: ["B" if touching else "I", *"I" * (count - 1)],
}

TAG_SCHEMES = tuple(_WRITERS)
"""The names of the schemes that are understood."""


def _known(scheme: str) -> str:
    if scheme not in _WRITTEN:
        raise ConfigError(unknown_name("scheme", scheme, TAG_SCHEMES))
    return _WRITTEN[scheme]


def _parsed(tag: str, scheme: str, letters: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    letter, hyphen, kind = tag.partition("-")
    if len(letter) != 1 or letter not in letters or (hyphen and not kind):
        expected = "O, or one of " + " ".join(letters) + ", alone or with a hyphen and a type"
        advice = "say what scheme the tags are in, or that they mark no spans"
        raise DataError(explain(f"not a tag of scheme {scheme}.", got=repr(tag)[:80], expected=expected, advice=advice))
    return _LETTERS[letter], kind
