"""Documents and their key terms, from files and from lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from carousel.errors import DataError, explain

if TYPE_CHECKING:
    from carousel.data.tagged import TaggedSentence
    from carousel.tasks.keyterms.options import KeyTermsOptions

__all__ = ["Document", "Documents", "Term", "as_term", "cut", "document_of", "find_terms", "open_documents", "term_text"]

Term = tuple[str, ...]
"""The words of a term, in small letters."""

Documents = str | os.PathLike[str] | Sequence[Any]
"""A file, or a list of pairs (text or words, terms), or of :class:`Document`."""

TABLES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".tsv": "tsv", ".csv": "csv"}
_UNSPACED = re.compile("(?<=[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]) (?=[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")


@dataclass(frozen=True, slots=True)
class Document:
    """The words of a document, and its key terms.

    Args:
        words: as they are written.
        terms: its key terms, each once, in the order of their first places; None if nothing is said about them. A term may
            stand nowhere in the words.
        spans: where terms stand: begin and end (not included), in order, none overlapping.
        path: the file, as messages show it.
        line: the line of the file where it begins, counted from 1; 0 if it was in no file.
    """

    words: tuple[str, ...]
    terms: tuple[Term, ...] | None = None
    spans: tuple[tuple[int, int], ...] = ()
    path: str = ""
    line: int = 0

    @property
    def lowered(self) -> tuple[str, ...]:
        """The words in small letters."""
        return tuple(word.lower() for word in self.words)


def term_text(term: Sequence[str]) -> str:
    """A term as text: its words with blanks between, but for scripts that have none.

    Args:
        term: its words.

    Example:
        >>> term_text(("hidden", "markov", "model")), term_text(("北", "京"))
        ('hidden markov model', '北京')
    """
    return _UNSPACED.sub("", " ".join(term))


def cut(text: str) -> tuple[str, ...]:
    """The words of a text, as they are written, punctuation cut off.

    Args:
        text: any text.

    Example:
        >>> cut("Key terms, found.")
        ('Key', 'terms', ',', 'found', '.')
    """
    from carousel.data import Tokenizer

    return tuple(Tokenizer("word", lowercase=False).tokenize(text))


def as_term(text: str | Sequence[str]) -> Term:
    """A term as it is compared: its words, in small letters.

    Args:
        text: a text, or its words.
    """
    return tuple(word.lower() for word in (cut(text) if isinstance(text, str) else text))


def find_terms(words: Sequence[str], terms: Iterable[Term]) -> tuple[tuple[int, int], ...]:
    """Where terms stand: from left to right, of several at one place the longest.

    Args:
        words: in small letters.
        terms: what to look for.

    Returns:
        Begin and end (not included) of each, none overlapping.

    Example:
        >>> find_terms(("a", "hidden", "markov", "model"), [("markov",), ("markov", "model")])
        ((2, 4),)
    """
    by_first: dict[str, list[Term]] = {}
    for term in sorted({term for term in terms if term}, key=len, reverse=True):
        by_first.setdefault(term[0], []).append(term)
    row, found, at = tuple(words), [], 0
    while at < len(row):
        size = next((len(term) for term in by_first.get(row[at], ()) if row[at : at + len(term)] == term), 0)
        if size:
            found.append((at, at + size))
        at += size or 1
    return tuple(found)


def document_of(item: Any, terms: Any = None, *, position: int = 0) -> Document:
    """A document from a text or from words.

    Args:
        item: a text, or its words, or a :class:`Document`.
        terms: its key terms, texts or words; None if nothing is said about them.
        position: its place in a list, for the message.

    Raises:
        DataError: it is something else.
    """
    if isinstance(item, Document) and terms is None:
        return item
    if isinstance(item, Document):
        words = item.words
    elif isinstance(item, str):
        words = cut(item)
    elif isinstance(item, list | tuple) and all(isinstance(word, str) for word in item):
        words = tuple(item)
    else:
        expected = "a text, or the list of its words"
        raise DataError(explain(f"document {position} of the list is none.", got=repr(item)[:200], expected=expected))
    if terms is None:
        return Document(words)
    if isinstance(terms, str) or not isinstance(terms, Iterable):
        what = f"document {position} of the list: its key terms are no list."
        raise DataError(explain(what, got=repr(terms)[:200], expected="a list of texts, perhaps empty"))
    return _with_terms(words, list(terms), "", position)


def open_documents(data: Documents, options: KeyTermsOptions, *, labelled: bool, what: str = "the data") -> list[Document]:
    """Read documents.

    Args:
        data: a file (``-`` is standard input), or a list.
        options: how files are written.
        labelled: whether key terms must be there.
        what: what is read, for messages.

    Raises:
        DataError: a file cannot be read, holds no document, or a record is not as it should be; names file and line.
    """
    if isinstance(data, str | os.PathLike):
        return list(_from_file(data, options, labelled))
    found = []
    for position, item in enumerate(data):
        pair = isinstance(item, tuple) and len(item) == 2 and not isinstance(item[1], str)
        document = document_of(*item, position=position) if pair else document_of(item, position=position)
        if labelled and document.terms is None:
            expected = "pairs (text, list of key terms)"
            raise DataError(explain(f"{what}: document {position} has no key terms.", got=repr(item)[:200], expected=expected))
        found.append(document)
    if labelled and not found:
        raise DataError(explain(f"{what}: there is no document.", expected="pairs (text, list of key terms)"))
    return found


def _from_file(path: str | os.PathLike[str], options: KeyTermsOptions, labelled: bool) -> Iterator[Document]:
    from carousel.data import labelled_examples
    from carousel.data.tagged import read_tagged

    table: str | None = options.format if options.format in TABLES.values() else None
    if options.format is None:
        suffixes = [suffix.lower() for suffix in PurePath(path).suffixes if suffix.lower() != ".gz"]
        table = TABLES.get(suffixes[-1]) if suffixes else None
    if table is not None:
        for example in labelled_examples(
            path,
            format=table,
            text_field=options.text_field,
            label_field=options.label_field,
            require_label=labelled,
            allow_empty=not labelled,
            label_separator=options.label_separator,
        ):
            if example.labels is None:
                yield Document(cut(example.text), None, (), example.path, example.line)
            else:
                yield _with_terms(cut(example.text), list(example.labels), example.path, example.line)
        return
    for sentence in read_tagged(path, format=options.format, column=options.column, require_tags=labelled):
        yield _from_tags(sentence)


def _with_terms(words: tuple[str, ...], terms: list[Any], path: str, line: int) -> Document:
    for term in terms:
        if not isinstance(term, str) and not (isinstance(term, list | tuple) and all(isinstance(w, str) for w in term)):
            raise DataError(explain("a key term is no text.", got=repr(term)[:200]), path=path or None, line=line or None)
    known = tuple(dict.fromkeys(term for term in map(as_term, terms) if term))
    return Document(words, known, find_terms([word.lower() for word in words], known), path, line)


def _from_tags(sentence: TaggedSentence) -> Document:
    """Spans of all types count alike; tags that do not fit together are read as conlleval does."""
    from carousel.data.tagged import spans

    if sentence.tags is None:
        words = cut(" ".join(sentence.words)) if sentence.format == "raw" else sentence.words
        return Document(words, None, (), sentence.path, sentence.line)
    scheme = "bioes" if any(tag[:1] in ("E", "L", "S", "U") for tag in sentence.tags) else "bio"
    try:
        found = [(begin, end) for begin, end, _ in spans(sentence.tags, scheme)]
    except DataError as error:
        raise DataError(str(error), path=sentence.path or None, line=sentence.line or None) from error
    lowered = [word.lower() for word in sentence.words]
    terms = tuple(dict.fromkeys(tuple(lowered[begin:end]) for begin, end in found))
    return Document(sentence.words, terms, tuple(found), sentence.path, sentence.line)
