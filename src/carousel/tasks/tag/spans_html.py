"""Tagged text as one HTML page: coloured spans or tags, and how sure the model is of each where the pointer rests."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from carousel.data.tagged import spans
from carousel.errors import ShapeError, explain
from carousel.files import write_file
from carousel.tasks.report.page import escaped

__all__ = ["ShownSentence", "spans_page", "write_spans_html"]

SHOWN = 2000  # sentences; browsers get slow with many more
HUES = (210, 10, 130, 280, 40, 180, 330, 95, 245, 60, 155, 305)  # neighbours far apart; later types begin again

STYLE = """
:root{color-scheme:light dark;--ink:#22303c;--pale:#5d6b78;--paper:#fff;--line:#dfe4ea;--light:84%}
@media(prefers-color-scheme:dark){:root{--ink:#dde4ea;--pale:#9aa8b5;--paper:#14191e;--line:#2c353d;--light:28%}}
body{margin:0 auto;max-width:960px;padding:24px 20px 60px;background:var(--paper);color:var(--ink);
font:16px/2 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:24px;margin:0}p{margin:6px 0;padding:4px 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
p.pale,.legend{color:var(--pale);border:0;line-height:1.9}
.s{border-radius:4px;padding:2px 4px;color:var(--ink)}.s small{margin-inline-start:4px;font-size:10px;color:var(--pale)}
.w{text-decoration:underline wavy 1px #c83e52;text-underline-offset:4px}
""" + "".join(f".k{at}{{background:hsl({hue} 65% var(--light))}}" for at, hue in enumerate(HUES))


@dataclass(frozen=True)
class ShownSentence:
    """A sentence of a page.

    Args:
        words: its words or characters.
        tags: of the words.
        probabilities: of the tags, 0 to 1; None: nothing is said.
        truth: the true tags, beside which mistakes are marked; None: they are not known.
        place: where it stands, as ``file:line``.
    """

    words: Sequence[str]
    tags: Sequence[str]
    probabilities: Sequence[float] | None = field(default=None, repr=False)
    truth: Sequence[str] | None = field(default=None, repr=False)
    place: str = ""


def write_spans_html(
    path: str | os.PathLike[str],
    sentences: Iterable[ShownSentence],
    *,
    title: str = "Tagged text",
    scheme: str | None = None,
    joined: bool = False,
) -> None:
    """Write :func:`spans_page` to a file, whole or not at all.

    Args:
        path: the file; its folder must exist.
        sentences: what is shown.
        title: the page's heading.
        scheme: how the tags mark spans, one of `TAG_SCHEMES`; None: each tag stands for itself.
        joined: whether no blanks stand between the words: they are characters.

    Raises:
        ShapeError: a sentence has not a tag, or not a probability, for each word.
        DataError: a tag is not one of the scheme's.
        OutputError: the file cannot be written.
    """
    write_file(path, spans_page(sentences, title=title, scheme=scheme, joined=joined))


def spans_page(
    sentences: Iterable[ShownSentence], *, title: str = "Tagged text", scheme: str | None = None, joined: bool = False
) -> bytes:
    """A page that needs nothing else: no script, no link leads out of it, and whatever stands in the text is shown as text.

    Args:
        sentences: what is shown, the first 2,000 of it.
        title: the page's heading.
        scheme: how the tags mark spans; None: each tag stands for itself.
        joined: whether no blanks stand between the words.

    Returns:
        The page in UTF-8.

    Raises:
        ShapeError: a sentence has not a tag, or not a probability, for each word.
        DataError: a tag is not one of the scheme's.
    """
    parts: list[list[_Part]] = []
    places: list[str] = []
    left_out = 0
    for sentence in sentences:
        if len(parts) < SHOWN:
            parts.append(list(_parts(sentence, scheme, joined)))
            places.append(sentence.place)
        else:
            left_out += 1
    counts = Counter(part.kind for line in parts for part in line if part.kind is not None)
    order = [kind for kind, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    colours = {kind: f"k{at % len(HUES)}" for at, kind in enumerate(order)}
    named = [kind for kind in order if kind]
    legend = " ".join(f'<span class="s {colours[kind]}">{escaped(kind)}<small>{counts[kind]}</small></span>' for kind in named)
    blank = "" if joined else " "
    lines = [
        f'<p dir="auto" title="{escaped(place)}">{blank.join(_shown(part, colours) for part in line)}</p>\n'
        for line, place in zip(parts, places, strict=True)
    ]
    note = f'<p class="pale">{left_out:,} more sentences are not shown.</p>' if left_out else ""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<h1>{escaped(title)}</h1><div class="legend">{legend}</div>\n{"".join(lines)}{note}</body></html>\n'
    )
    return page.encode("utf-8", "replace")


@dataclass(frozen=True)
class _Part:
    """A piece of a sentence: a span, a tagged word, or a word outside all spans (`kind` None)."""

    text: str
    kind: str | None
    hint: str
    wrong: bool


def _parts(sentence: ShownSentence, scheme: str | None, joined: bool) -> Iterator[_Part]:
    N = len(sentence.words)
    for name in ("tags", "probabilities", "truth"):
        values = getattr(sentence, name)
        if values is not None and len(values) != N:
            raise ShapeError(explain(f"a sentence of {N} words.", got=f"{len(values)} {name}", expected=f"{N}"))
    if scheme is None:
        found = [(at, at + 1, tag) for at, tag in enumerate(sentence.tags)]
        true = None if sentence.truth is None else [(at, at + 1, tag) for at, tag in enumerate(sentence.truth)]
    else:
        found = spans(sentence.tags, scheme)
        true = None if sentence.truth is None else spans(sentence.truth, scheme)
    at = 0
    for begin, end, kind in [*found, (N, N, "")]:
        for alone in range(at, begin):
            yield _Part(sentence.words[alone], None, *_hint(sentence, alone, alone + 1, None, true))
        if end > begin:
            text = ("" if joined else " ").join(sentence.words[begin:end])
            yield _Part(text, kind, *_hint(sentence, begin, end, kind, true))
        at = end


def _hint(
    sentence: ShownSentence, begin: int, end: int, kind: str | None, true: list[tuple[int, int, str]] | None
) -> tuple[str, bool]:
    """What the pointer shows, and whether it is a mistake."""
    said = [] if kind is None else [kind] if kind else []
    if sentence.probabilities is not None:
        said.append(" ".join(f"{probability:.2f}" for probability in sentence.probabilities[begin:end]))
    if true is None:
        return ", ".join(said), False
    if kind is not None:
        wrong = (begin, end, kind) not in true
    else:
        wrong = any(first <= begin < last for first, last, _ in true)
    if wrong and sentence.truth is not None:
        said.append("true: " + " ".join(sentence.truth[begin:end]))
    return ", ".join(said), wrong


def _shown(part: _Part, colours: dict[str, str]) -> str:
    classes = (["s", colours[part.kind]] if part.kind is not None else []) + (["w"] if part.wrong else [])
    label = f"<small>{escaped(part.kind)}</small>" if part.kind else ""
    attributes = (f' class="{" ".join(classes)}"' if classes else "") + (f' title="{escaped(part.hint)}"' if part.hint else "")
    return f"<bdi{attributes}>{escaped(part.text)}{label}</bdi>"
