"""Tagged text: CoNLL-U, column files, ``word/tag`` text and plain lines, read and written back; and how tags mark spans.

:func:`read_tagged` gives a :class:`TaggedSentence` after the other, :func:`write_tagged` writes the same file with other tags.
:func:`spans` reads spans from tags, :func:`convert` writes them in another scheme.
"""

from carousel.data.tagged.guess import guess_tagged_format
from carousel.data.tagged.reading import TAGGED_FORMATS, read_tagged
from carousel.data.tagged.schemes import TAG_SCHEMES, Span, convert, faults, guess_scheme, spans
from carousel.data.tagged.sentence import TaggedSentence, to_characters, to_words
from carousel.data.tagged.writing import tagged_lines, write_tagged

__all__ = [
    "TAGGED_FORMATS",
    "TAG_SCHEMES",
    "Span",
    "TaggedSentence",
    "convert",
    "faults",
    "guess_scheme",
    "guess_tagged_format",
    "read_tagged",
    "spans",
    "tagged_lines",
    "to_characters",
    "to_words",
    "write_tagged",
]
