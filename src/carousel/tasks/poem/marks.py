"""A poem as one text that a language model reads: signs for form, title and lines stand before what they speak of.

.. code-block:: text

    KIND  [TUNE name]  [TITLE title]  LINE(5，) 春眠不覺曉  LINE(5。) 處處聞啼鳥  ...  LINE(5 last) 花落知多少

A sign is one character of Unicode's private use area, which no text has of its own, so that the tokens are characters
throughout. LINE tells how many characters follow and what stands behind them: the form is what is given, not what is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from carousel.tasks.poem.forms import FORMS, MAX_LENGTH
from carousel.tasks.poem.poems import COMMA, FULL_STOP, PAUSE, Poem, only_han, tune_names

__all__ = ["TITLE", "TUNE", "beginning", "is_mark", "kind_of", "line_mark", "marked", "nearest"]

TITLE, TUNE = "\ue000", "\ue001"
KINDS = (*FORMS, "verse", "ci")
_FIRST_KIND, _FIRST_LINE, _LAST = 0xE010, 0xE100, 0xEFFF
_ENDS = (COMMA, PAUSE, FULL_STOP, "last")


def is_mark(token: str) -> bool:
    """Whether a token is a sign."""
    return len(token) == 1 and ord(TITLE) <= ord(token) <= _LAST


def kind_of(lengths: Sequence[int], *, tune: bool) -> str:
    """The sign of a form: one of those with a name, any other verse, or a ci.

    Args:
        lengths: of the lines.
        tune: whether it has a tune.
    """
    named = next((name for name, form in FORMS.items() if form.lengths == tuple(lengths)), "verse")
    return chr(_FIRST_KIND + KINDS.index("ci" if tune else named))


def line_mark(length: int, stop: str, *, last: bool) -> str:
    """The sign before a line.

    Args:
        length: its characters, 1 to 40.
        stop: what stands behind it.
        last: whether it is the poem's last.
    """
    return chr(_FIRST_LINE + len(_ENDS) * length + (len(_ENDS) - 1 if last else _ENDS.index(stop)))


def nearest(mark: str, known: Iterable[str]) -> str | None:
    """The sign of a line that is most like this one: of the nearest length, then with the same mark behind it.

    Args:
        mark: the sign of a line.
        known: signs to choose from; others than those of lines do not count.

    Returns:
        One of them, None if there is none.
    """
    length, end = divmod(ord(mark) - _FIRST_LINE, len(_ENDS))

    def distance(other: str) -> tuple[int, bool]:
        its_length, its_end = divmod(ord(other) - _FIRST_LINE, len(_ENDS))
        return abs(its_length - length), its_end != end

    return min((one for one in known if is_mark(one) and ord(one) >= _FIRST_LINE), key=distance, default=None)


def beginning(lengths: Sequence[int], title: str, tune: str, title_length: int) -> str:
    """What stands before the lines.

    Args:
        lengths: of the lines.
        title: its Chinese characters count, the first `title_length` of them.
        tune: the same; the last of its names.
        title_length: characters of a title that are read.
    """
    name = tune_names(tune)[-1][:title_length] if tune_names(tune) else ""
    heading = only_han(title)[:title_length]
    parts = [kind_of(lengths, tune=bool(name)), TUNE + name if name else "", TITLE + heading if heading else ""]
    return "".join(parts)


def marked(poem: Poem, *, title_length: int, max_lines: int | None = None) -> tuple[str, str]:
    """The text of a poem: what stands before its lines, and the lines with their signs.

    Args:
        poem: a poem; of lines longer than 40 characters the sign of 40 is taken.
        title_length: characters of a title that are read.
        max_lines: so many lines; None for all.
    """
    lines = []
    for place, (line, stop) in enumerate(zip(poem.lines[:max_lines], poem.stops, strict=False)):
        lines.append(line_mark(min(len(line), MAX_LENGTH), stop, last=place + 1 == len(poem.lines)) + line)
    return beginning(poem.lengths, poem.title, poem.tune, title_length), "".join(lines)
