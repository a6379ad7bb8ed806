"""Forms: how many lines, how long each is, what stands behind it, and which lines rhyme."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from carousel.errors import CheckpointError, ConfigError, explain
from carousel.tasks.poem.poems import COMMA, FULL_STOP, PAUSE, Poem, tune_names

if TYPE_CHECKING:
    from carousel.tasks.poem.rhymes import RhymeTable

__all__ = ["FORMS", "MAX_LENGTH", "MAX_LINES", "Form", "choose_form", "find_tune", "learn_tunes"]

MAX_LENGTH, MAX_LINES = 40, 200
NO_RHYME = "-"
ENOUGH = 5  # poems of a tune that tell whether lines inside of a sentence rhyme
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Form:
    """The form of a poem.

    Args:
        lengths: the characters of each line.
        stops: what stands behind each line, one character for each: a comma, a pause or a full stop of Chinese.
        scheme: which lines rhyme, a sign for each: lines with the same letter do, `-` does not.
        name: what it is called; it may be empty.

    Raises:
        ConfigError: there is no line, there are too many or too long ones, or the three do not fit together.

    Example:
        >>> Form.of([5, 5, 7])
        Form(lengths=(5, 5, 7), stops='，。。', scheme='-aa', name='')
        >>> FORMS["qijue"].pairs
        ((0, 1), (1, 3))
    """

    lengths: tuple[int, ...]
    stops: str
    scheme: str
    name: str = ""

    def __post_init__(self) -> None:
        count = len(self.lengths)
        whole = all(isinstance(length, int) and not isinstance(length, bool) for length in self.lengths)
        if not count or count > MAX_LINES or not whole or not all(1 <= length <= MAX_LENGTH for length in self.lengths):
            expected = f"1 to {MAX_LINES} lines, each of 1 to {MAX_LENGTH} characters"
            raise ConfigError(explain("no form of a poem.", got=repr(self.lengths)[:80], expected=expected))
        if len(self.stops) != count or set(self.stops) - {COMMA, PAUSE, FULL_STOP}:
            expected = f"{count} of {COMMA} {PAUSE} {FULL_STOP}"
            raise ConfigError(
                explain("a form says what stands behind each line.", got=repr(self.stops)[:80], expected=expected)
            )
        if len(self.scheme) != count or set(self.scheme) - set(LETTERS + NO_RHYME):
            expected = f"{count} small letters or {NO_RHYME}, the same letter for lines that rhyme"
            raise ConfigError(explain("a form says which lines rhyme.", got=repr(self.scheme)[:80], expected=expected))

    @classmethod
    def of(cls, lengths: Sequence[int], scheme: str | None = None, name: str = "") -> Form:
        """A form by the lengths of its lines, in couplets: full stops after every second line and the last.

        Args:
            lengths: the characters of each line.
            scheme: which lines rhyme; None for those before a full stop.
            name: what it is called.
        """
        count = len(lengths)
        stops = "".join(FULL_STOP if place % 2 or place + 1 == count else COMMA for place in range(count))
        scheme = "".join("a" if stop == FULL_STOP else NO_RHYME for stop in stops) if scheme is None else scheme
        return cls(tuple(lengths), stops, scheme, name)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The lines that rhyme, each with the next one of its letter."""
        found, last = [], dict[str, int]()
        for place, letter in enumerate(self.scheme):
            if letter != NO_RHYME:
                if letter in last:
                    found.append((last[letter], place))
                last[letter] = place
        return tuple(found)

    def __str__(self) -> str:
        return self.name or ",".join(map(str, self.lengths))

    def to_dict(self) -> dict[str, Any]:
        """The form as JSON values, without its name."""
        return {"lengths": list(self.lengths), "stops": self.stops, "scheme": self.scheme}

    @classmethod
    def from_dict(cls, content: Any, name: str) -> Form:
        """The form that :meth:`to_dict` wrote.

        Args:
            content: JSON values.
            name: its name.

        Raises:
            CheckpointError: it is something else.
        """
        good = (
            isinstance(content, Mapping)
            and set(content) == {"lengths", "stops", "scheme"}
            and isinstance(content["lengths"], list)
            and all(isinstance(content[key], str) for key in ("stops", "scheme"))
        )
        try:
            if good:
                return cls(tuple(content["lengths"]), content["stops"], content["scheme"], name)
        except ConfigError as error:
            raise CheckpointError(f"tune {name!r}: {error}") from error
        raise CheckpointError(explain(f"tune {name!r}: not a form.", got=repr(content)[:200]))


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        # The first line of seven characters usually rhymes, that of five usually does not.
        "wujue": Form.of([5] * 4, "-a-a", "wujue"),
        "qijue": Form.of([7] * 4, "aa-a", "qijue"),
        "wulü": Form.of([5] * 8, "-a-a-a-a", "wulü"),
        "qilü": Form.of([7] * 8, "aa-a-a-a", "qilü"),
    }
)
"""The forms that have a name: quatrains and regulated verse of five and seven characters."""

OTHER_NAMES = {
    "五絕": "wujue", "五绝": "wujue", "七絕": "qijue", "七绝": "qijue", "五律": "wulü", "七律": "qilü",
    "wulu": "wulü", "wulv": "wulü", "qilu": "qilü", "qilv": "qilü",
}  # fmt: skip


def choose_form(form: str | Form | Sequence[int], scheme: str | None = None) -> Form:
    """A form by its name, or by the lengths of its lines.

    Args:
        form: `wujue`, `qijue`, `wulü`, `qilü` (`wulv` and `五律` are understood, too), lengths such as ``5,5,7``, a list of
            lengths, or a form.
        scheme: which lines rhyme; None for what is usual.

    Raises:
        ConfigError: it is none of these.

    Example:
        >>> choose_form("七絕").name, choose_form("3,3,7", "aaa").scheme
        ('qijue', 'aaa')
    """
    if isinstance(form, str):
        text = form.strip().lower().replace("，", ",")
        name = OTHER_NAMES.get(text, text)
        if name in FORMS:
            found = FORMS[name]
        elif re.fullmatch(r"[0-9]{1,3}(?:\s*,\s*[0-9]{1,3})*", text):
            found = _named([int(length) for length in text.split(",")])
        else:
            expected = f"{', '.join(FORMS)}, or the lengths of lines such as 5,5,7"
            raise ConfigError(explain("unknown form.", got=repr(form)[:80], expected=expected))
    elif isinstance(form, Form):
        found = form
    else:
        found = _named(list(form))
    return found if scheme is None else Form(found.lengths, found.stops, scheme, found.name)


def learn_tunes(poems: Iterable[Poem], rhymes: RhymeTable) -> dict[str, Form]:
    """The form of each tune: the commonest pattern among its poems, and which of its lines mostly rhyme.

    Args:
        poems: those without a tune are left aside.
        rhymes: which characters rhyme.

    Returns:
        Name of the tune to its form, the tunes with most poems first. A poem counts for every name of its tune.
    """
    groups: dict[str, dict[tuple[tuple[int, ...], str], list[Poem]]] = defaultdict(lambda: defaultdict(list))
    for poem in poems:
        if len(poem.lines) <= MAX_LINES and max(poem.lengths) <= MAX_LENGTH:
            for name in tune_names(poem.tune):
                groups[name][poem.lengths, poem.stops].append(poem)
    counts = Counter({name: sum(map(len, patterns.values())) for name, patterns in groups.items()})
    found = {}
    for name, _ in counts.most_common():
        (lengths, stops), alike = max(groups[name].items(), key=lambda item: len(item[1]))
        found[name] = Form(lengths, stops, _scheme(alike, stops, rhymes), name)
    return found


def find_tune(tunes: Mapping[str, Form], tune: str) -> Form:
    """The form of a tune.

    Args:
        tunes: what was learned.
        tune: its name.

    Raises:
        ConfigError: it was not learned; the message names near ones.
    """
    for name in reversed(tune_names(tune)):
        if name in tunes:
            return tunes[name]
    near = difflib.get_close_matches(tune[:100], tunes, n=5, cutoff=0.3) or list(tunes)[:5]
    expected = f"one of {len(tunes)}, such as {', '.join(near)}" if near else "no tune: there was no ci in the training data"
    advice = "say the lengths of its lines instead: --lines 7,7,5"
    raise ConfigError(explain("unknown tune.", got=repr(tune)[:80], expected=expected, advice=advice))


def _named(lengths: Sequence[int]) -> Form:
    """The form with a name that has these lengths, or one without a name."""
    return next((form for form in FORMS.values() if form.lengths == tuple(lengths)), None) or Form.of(lengths)


def _scheme(poems: Sequence[Poem], stops: str, rhymes: RhymeTable) -> str:
    """A letter for lines that rhyme in more than half of the poems of a pattern."""
    letters: list[int | None] = []
    enough = len(poems) >= ENOUGH
    for place, stop in enumerate(stops):
        letter: int | None = None
        if enough or stop == FULL_STOP:
            shares = [
                (sum(rhymes.match(poem.lines[before][-1], poem.lines[place][-1]) for poem in poems) / len(poems), -before)
                for before in range(place)
                if letters[before] is not None
            ]
            best = max(shares, default=(0.0, 0))
            letter = letters[-best[1]] if best[0] > 0.5 else place
        letters.append(letter)
    counts = Counter(letters)
    shared = [letter for letter in dict.fromkeys(letters) if letter is not None and counts[letter] > 1]
    names = dict(zip(shared[: len(LETTERS)], LETTERS, strict=False))
    return "".join(NO_RHYME if letter is None else names.get(letter, NO_RHYME) for letter in letters)
