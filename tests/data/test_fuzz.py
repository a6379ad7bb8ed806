"""Damaged files: every reader gives what stands there, or an error with file and line; nothing else, and soon.

`CAROUSEL_TEST_NIGHTLY=1` runs 10,000 damaged files for each reader instead of a few hundred.
"""

import gzip
import json
import os
import random
import time

import numpy as np
import pytest

from carousel.data import Vocabulary, describe_file, read_labelled, read_series, read_vectors
from carousel.data.tagged import read_tagged, tagged_lines
from carousel.errors import CarouselError, DataError

COUNT = 10_000 if os.environ.get("CAROUSEL_TEST_NIGHTLY") else 250
SECONDS = 2.0

PAIRS = [("pos", "a moving film"), ("neg", 'he said "no", twice'), ("pos", "房间很大"), ("neg", "dull – é"), ("3", "x " * 30)]
LABELLED = {
    "tsv": "label\ttext\tid\n" + "".join(f"{label}\t{text}\t7\n" for label, text in PAIRS),
    "csv": "label,text\n" + "".join('{},"{}"\n'.format(label, text.replace('"', '""')) for label, text in PAIRS),
    "jsonl": "".join(json.dumps({"label": a, "text": b}, ensure_ascii=n % 2) + "\n" for n, (a, b) in enumerate(PAIRS)),
    "txt": "".join(f"{label} {text}\n" for label, text in PAIRS),
}  # fmt: skip
SERIES = {
    "ts": "#a comment\n@problemName Toy\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength false\n"
    "@classLabel true up down\n@data\n1,2.5,-3e-1:4,5,6:up\n0.1,0.2:7,8:down\n1,?,3:1,2,3:up\n-1:+2:down\n",
    "csv": "id,x,y,label,t\na,1,2.5,up,1\na,-3e-1,4,up,2\nb,5,,down,1\n\"b\",6,7,,2\nc,0,0,up,3\n",
    "tsv": "id\tx\tlabel\na\t1\tup\nb\t2\tdown\na\t-1.5\tup\n",
}  # fmt: skip
VECTORS = {
    "word2vec": "4 3\nthe 0.1 0.2 -0.3\n. . 1e-3 2 3\nfilm 1 2 3\nFilm 4 5 6\n",
    "glove": "the 0.1 0.2 -0.3\nof 1 2 3\n. . . 1e-3 2 3\nfilm 1 2 3\nthe 4 5 6\n",
}

SALT = [
    *(bytes([byte]) for byte in b"\0\xff\xc3\r\n\t,:;\"' \\{}[]-+.?(@#"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b'""', b"\x1f\x8b"),
    *(b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"1e39", b"1_0", b"0x1", b"null", b"true"),
    *(b"@data\n", b"@dimensions 3\n", b"@dimensions 99999999999999999999\n", b"label", b"text"),
    *(b"\\ud800", b"\\u0000", "²".encode(), "١".encode(), "\u2028".encode(), "\x85".encode()),
    *(b"9" * 400, b"[" * 3000, b"," * 3000, b"x" * 70_000),
]


def mutated(content, dice):
    """The file with one to four wounds; sometimes compressed, with wounds there, too."""
    raw = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        wound(raw, dice)
    if dice.random() < 0.15:
        raw = bytearray(gzip.compress(bytes(raw), 1))
        for _ in range(dice.randint(0, 2)):
            wound(raw, dice)
    return bytes(raw)


def wound(raw, dice):
    place = dice.randrange(len(raw) + 1)
    end = min(len(raw), place + dice.choice([1, 1, 2, 5, 20, 100]))
    match dice.randrange(7):
        case 0 if place < len(raw):
            raw[place] ^= 1 << dice.randrange(8)
        case 1:
            del raw[place:end]
        case 2:
            raw[place:place] = raw[place:end] * dice.choice([1, 2, 50])
        case 3:
            raw[place:place] = dice.choice(SALT)
        case 4:
            raw[place:end] = dice.choice(SALT)
        case 5:
            del raw[place:]
        case _:
            lines = bytes(raw).splitlines(keepends=True)
            dice.shuffle(lines)
            raw[:] = b"".join(lines)


TAGGED = {
    "columns": "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n# comment\n房间 NN B-LOC\n很大 NN I-LOC\n. . O\n\n",
    "conllu": "# text = Don't go\n1-2\tDon't" + 8 * "\t_" + "\n1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_\n"
    "2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_\n3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n\n",
    "word/tag": "１２月/t  ３１日/t  ，/w\n\n北京/ns  很/d  大/a\n",
    "raw": "a moving film\n\n房间很大\n",
}  # fmt: skip

WHOLE_FILE = ("holds no examples", "holds no series", "holds no sentences", "holds no vectors", "cannot be read")


def check(error, path):
    assert str(error).startswith(str(path)), error
    assert error.line is not None or any(words in str(error) for words in WHOLE_FILE), error


def attempts(content, tmp_path, seed, read, count=COUNT):
    """Read many damaged files; give what was read, and how often it was an error."""
    path, errors, results = tmp_path / "file", 0, []
    dice = random.Random(seed)
    for number in range(count):
        damaged = mutated(content.encode(), dice)
        path.write_bytes(damaged)
        start = time.process_time()
        try:
            result = read(path)
        except DataError as error:
            errors += 1
            check(error, path)
            result = None
        assert time.process_time() - start < SECONDS, (number, damaged)
        if result is not None:
            results.append((damaged, result))
    assert errors > count // 20
    assert len(results) > count // 20  # some files are still in order, or the test would see errors alone
    return results


def plain_lines(damaged):
    """The lines of a file, decoded here by other means than the reader's."""
    raw = gzip.decompress(damaged) if damaged[:2] == b"\x1f\x8b" else damaged
    return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")


@pytest.mark.parametrize("format", LABELLED)
@pytest.mark.parametrize(
    "options", [{}, {"label_separator": "|"}, {"require_label": False, "allow_empty": True}], ids=["one", "several", "loose"]
)
def test_damaged_texts(tmp_path, format, options, seed):  # noqa: A002
    for damaged, examples in attempts(
        LABELLED[format], tmp_path, seed, lambda path: read_labelled(path, format=format, **options)
    ):
        lines = plain_lines(damaged)
        assert examples
        for example in examples:
            assert example.text == example.text.strip()
            assert "\0" not in example.text + (example.label or "")
            example.text.encode()
            assert example.text or options.get("allow_empty")
            assert example.label or not options.get("require_label", True) or options.get("label_separator")
            if format == "jsonl":
                assert (json.loads(lines[example.line - 1])["text"] or "").strip() == example.text
            elif format != "csv":
                assert example.text in lines[example.line - 1] or '""' in lines[example.line - 1]


def test_damaged_numbers_to_foretell(tmp_path, seed):
    content = "y\ttext\tz\n" + "".join(f"{n}.5\t{text}\t-{n}e-2\n" for n, (_, text) in enumerate(PAIRS))
    read = lambda path: read_labelled(path, format="tsv", target_fields=("y", "z"))  # noqa: E731
    for _, examples in attempts(content, tmp_path, seed, read):
        assert all(len(example.targets) == 2 and np.isfinite(example.targets).all() for example in examples)


@pytest.mark.parametrize("format", SERIES)
@pytest.mark.parametrize("missing", ["refuse", "previous"])
def test_damaged_series(tmp_path, format, missing, seed):  # noqa: A002
    options = {"time_field": "t"} if format == "csv" and missing == "previous" else {}
    content = SERIES[format] if missing == "previous" else SERIES[format].replace("?", "2").replace("5,,down", "5,1,down")
    for _, found in attempts(
        content, tmp_path, seed, lambda path: read_series(path, format=format, missing=missing, **options)
    ):
        assert len({series.values.shape[1] for series in found}) == 1
        for series in found:
            assert series.values.dtype == np.float32
            assert len(series.values) > 0
            assert np.isfinite(series.values).all()
            assert series.label


@pytest.mark.parametrize("format", TAGGED)
def test_damaged_tags(tmp_path, format, seed):  # noqa: A002
    options = {"scheme": "bio"} if format == "columns" else {"require_tags": False} if format == "raw" else {}
    read = lambda path: list(read_tagged(path, format=format, **options))  # noqa: E731
    for damaged, sentences in attempts(TAGGED[format], tmp_path, seed, read, COUNT // 2):
        lines = plain_lines(damaged)
        assert sentences
        for sentence in sentences:
            assert all(sentence.words)
            assert format == "raw" or len(sentence.tags) == len(sentence.words)
            for at, word in enumerate(sentence.words):
                assert word in lines[sentence.line_of(at) - 1]
        again = tmp_path / "again"
        again.write_text("".join(line + "\n" for sentence in sentences for line in tagged_lines(sentence)), encoding="utf-8")
        assert [(s.words, s.tags) for s in read(again)] == [(s.words, s.tags) for s in sentences]


@pytest.mark.parametrize("kind", VECTORS)
def test_damaged_vectors(tmp_path, kind, seed):
    for _, vectors in attempts(
        VECTORS[kind], tmp_path, seed, lambda path: read_vectors(path, ["the", "film", ".", ". .", "dull"])
    ):
        assert np.isfinite(vectors.matrix).all()
        assert vectors.matrix.shape[0] == len(vectors.tokens) == vectors.coverage.found
        assert {"the", "film", ".", ". .", "dull"} >= set(vectors.tokens)


@pytest.mark.parametrize(
    "content", [*LABELLED.values(), *SERIES.values()], ids=[*LABELLED, *("series " + name for name in SERIES)]
)
def test_any_damaged_file_is_described(tmp_path, content, seed):
    path, dice = tmp_path / "file", random.Random(seed)
    described = 0
    for _ in range(COUNT // 2):
        path.write_bytes(mutated(content.encode(), dice))
        start = time.process_time()
        try:
            report = describe_file(path, problem_limit=5)
        except DataError as error:
            check(error, path)
        else:
            described += 1
            assert sum(report.labels.values()) + report.unlabelled == report.records
            assert len(report.problems) == min(report.problem_count, 5)
            assert all(str(path) in problem.message for problem in report.problems)
            assert all(isinstance(warning, str) for warning in report.warnings)
        assert time.process_time() - start < SECONDS
    assert described > COUNT // 4


@pytest.mark.parametrize("name", ["tokenizer.json", "vocabulary.json"])
def test_damaged_tokens(tmp_path, name, seed):
    from carousel.data import Tokenizer

    texts = ["the lower the better", "slower and slower", "房间很大"]
    tokenizer = Tokenizer("subword", vocab_size=300).learn(texts)
    kind = {"tokenizer.json": tokenizer, "vocabulary.json": Vocabulary.count(map(tokenizer.tokenize, texts))}[name]
    path, dice = tmp_path / name, random.Random(seed)
    kind.save(path)
    content, loaded, refused = path.read_bytes(), 0, []
    for _ in range(COUNT):
        path.write_bytes(mutated(content, dice))
        start = time.process_time()
        try:
            back = type(kind).load(path)
            if name == "tokenizer.json":
                assert back.unit != "subword" or back.join(back.tokenize("lower 房")) == ("lower 房")
            loaded += 1
        except CarouselError as error:
            refused.append(str(error))
        assert time.process_time() - start < SECONDS
    assert 0 < loaded < COUNT
    assert all(str(path) in message for message in refused)
