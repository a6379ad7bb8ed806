"""Readers of labelled text."""

import csv
import gzip
import io
import json
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from carousel.data import FORMATS, Example, labelled_examples, read_labelled, tables
from carousel.data.source import MISSING
from carousel.errors import ConfigError, DataError

PAIRS = [("pos", "a moving film"), ("neg", 'he said "no", twice'), ("pos", "房间很大")]


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="data.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def pairs(examples):
    return [(example.label, example.text) for example in examples]


def as_csv(rows, **options):
    stream = io.StringIO()
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows)


CONTENTS = {
    "data.tsv": as_csv([("label", "text"), *PAIRS], delimiter="\t"),
    "data.tab": "text\tid\tlabel\n" + "".join(f"{text}\t{n}\t{label}\n" for n, (label, text) in enumerate(PAIRS)),
    "data.csv": as_csv([("label", "text"), *PAIRS]),
    "data.jsonl": as_jsonl(PAIRS),
    "data.ndjson": as_jsonl(PAIRS),
    "data.txt": "".join(f"{label} {text}\n" for label, text in PAIRS),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_format_is_known_by_its_suffix(write, name, packed):
    content = CONTENTS[name].encode()
    path = write(gzip.compress(content) if packed else content, name.upper() + ".gz" if packed else name)
    assert pairs(read_labelled(path)) == PAIRS


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_is_known_by_its_first_line(write, name, monkeypatch):
    assert pairs(read_labelled(write("\n\n" + CONTENTS[name], "stsa.binary.train"))) == PAIRS
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONTENTS[name].encode())))
    assert pairs(read_labelled("-")) == PAIRS


@pytest.mark.parametrize("name", CONTENTS)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(write, name):
    content = CONTENTS[name].replace("\r\n", "\n").replace("\n", "\r\n")
    assert pairs(read_labelled(write(b"\xef\xbb\xbf" + content.encode(), name))) == PAIRS


def test_an_example_knows_its_place(write):
    path = write('label,text\n\na,"one\ntwo"\n\n b , three \n', "x.csv")
    assert read_labelled(path) == [Example("one\ntwo", "a", str(path), 3), Example("three", "b", str(path), 6)]


def test_the_format_can_be_said(write):
    path = write(CONTENTS["data.csv"], "data.txt")
    assert pairs(read_labelled(path, format="csv")) == PAIRS
    with pytest.raises(ConfigError, match=r"unknown format 'cvs'\. Did you mean 'csv'\?"):
        read_labelled(path, format="cvs")


def test_columns_and_keys_can_be_chosen(write):
    for content, name in (("stars\treview\n5\tgood\n", "a.tsv"), ('{"stars": 5, "review": "good"}', "a.jsonl")):
        examples = read_labelled(write(content, name), text_field="review", label_field="stars")
        assert pairs(examples) == [("5", "good")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('a\t"quoted ""twice"""', 'quoted "twice"'),
        ('a\t"a\ttab"', "a\ttab"),
        ('a\t"Great" film', '"Great" film'),
        ('a\t"never closed', '"never closed'),
        ('a\tsay "no"', 'say "no"'),
    ],
)
def test_a_stray_quote_in_tsv_is_a_quote(write, line, text):
    assert pairs(read_labelled(write(f"label\ttext\n{line}\nb\tnext\n"))) == [("a", text), ("b", "next")]


def test_a_text_longer_than_the_csv_module_allows_is_read(write):
    text = "x" * 300_000
    assert read_labelled(write(f'label,text\na,"{text}"\n', "a.csv"))[0].text == text


def test_labels_in_json_are_words(write):
    content = '{"label": 3, "text": "a"}\n{"label": true, "text": "b"}\n{"label": 0.5, "text": "c"}\n'
    assert [label for label, _ in pairs(read_labelled(write(content, "a.jsonl")))] == ["3", "true", "0.5"]


def test_texts_without_labels_are_read_where_no_label_is_required(write):
    texts = [(None, "one two"), (None, "three")]
    for content, name in (
        ("text\none two\nthree\n", "a.csv"),
        ("label\ttext\n\tone two\nNaN\tthree\n", "a.tsv"),
        ('{"text": "one two"}\n{"text": "three", "label": null}\n', "a.jsonl"),
        ("one two\n\nthree\n", "a.txt"),
        ("one two\n\nthree\n", "a.unknown"),
        ("{one two\n\nthree\n", "a.braces"),
    ):
        found = pairs(read_labelled(write(content, name), require_label=False))
        assert [(label, text.lstrip("{")) for label, text in found] == texts


def test_labels_are_kept_where_they_are_not_required_but_there(write):
    assert pairs(read_labelled(write(CONTENTS["data.csv"], "a.csv"), require_label=False)) == PAIRS


def test_lines_of_text_and_examples_stay_side_by_side_when_empty_ones_are_allowed(write):
    examples = read_labelled(write("\none\n\ntwo\n\n", "a.txt"), require_label=False, allow_empty=True)
    assert [(example.text, example.line) for example in examples] == [("", 1), ("one", 2), ("", 3), ("two", 4), ("", 5)]


@pytest.mark.parametrize(
    ("content", "name"),
    [("label\ttext\na\t \n", "a.tsv"), ('{"label": "a", "text": null}', "a.jsonl"), ("a\n", "a.txt")],
)
def test_an_empty_text_is_an_error_unless_allowed(write, content, name):
    path = write(content, name)
    assert pairs(read_labelled(path, allow_empty=True)) == [("a", "")]
    line = 2 if name == "a.tsv" else 1
    with pytest.raises(DataError, match=rf"{name}:{line}: "):
        read_labelled(path)


ERRORS = {
    "empty": ("a.tsv", "", "a.tsv: the file holds no examples."),
    "blank": ("a.txt", "\n \n", "a.txt: the file holds no examples."),
    "only a header": ("a.csv", "label,text\n", "a.csv: the file holds no examples."),
    "missing column": (
        "a.tsv",
        "label\ttxt\nx\ty\n",
        "a.tsv:1: column 'text' is missing. Did you mean 'txt'?\n"
        "  got:      label, txt\n"
        "  try:      the first line must name the columns; choose another one with text_field",
    ),
    "other case": ("a.csv", "LABEL,text\n", "a.csv:1: column 'label' is missing. Did you mean 'LABEL'?"),
    "other separator": ("a.csv", "label;text\nx;y\n", "the columns seem to be separated by ';'"),
    "column twice": ("a.csv", "text,label,text\n", "a.csv:1: column 'text' stands there twice."),
    "too few fields": (
        "a.csv",
        "label,text\n\nx\n",
        "a.csv:3: the record has too few fields.\n  got:      1 fields for",
    ),
    "too many fields": (
        "a.tsv",
        "label\ttext\nx\ty\tz\n",
        "a.tsv:2: the record has too many fields.\n  got:      3 fields",
    ),
    "quote not closed": ("a.csv", 'label,text\nx,ok\nx,"y\n\nz,a\n', "a.csv:3: the record is not valid CSV."),
    "text after quote": ("a.csv", 'label,text\nx,"y" z\n', "a.csv:2: the record is not valid CSV."),
    "no label": ("a.csv", "label,text\n,y\n", "a.csv:2: the label is missing.\n  got:      ''"),
    "NaN label": ("a.tsv", "label\ttext\nnan\ty\n", "a.tsv:2: the label is missing.\n  got:      'nan'"),
    "None label": ("a.tsv", "label\ttext\nNone\ty\n", "a.tsv:2: the label is missing.\n  got:      'None'"),
    "JSON null label": (
        "a.jsonl",
        '{"label": null, "text": "y"}',
        "a.jsonl:1: the label is missing.\n  got:      nothing",
    ),
    "JSON NaN label": ("a.jsonl", '{"label": NaN, "text": "y"}', "a.jsonl:1: the label is missing.\n  got:      'NaN'"),
    "JSON list label": (
        "a.jsonl",
        '{"label": [1], "text": "y"}',
        "a.jsonl:1: key 'label' is not a label.\n  got:      [1]",
    ),
    "JSON number text": (
        "a.jsonl",
        '{"label": 1, "text": 2}',
        "a.jsonl:1: key 'text' is not a string.\n  got:      2 of",
    ),
    "JSON null text": (
        "a.jsonl",
        '{"label": 1, "text": null}',
        "a.jsonl:1: key 'text' is not a string.\n  got:      null",
    ),
    "JSON missing key": ("a.jsonl", '{"label": 1, "tetx": "y"}', "key 'text' is missing. Did you mean 'tetx'?"),
    "JSON missing label": ("a.jsonl", '{"labels": 1, "text": "y"}', "key 'label' is missing. Did you mean 'labels'?"),
    "JSON mistake": ("a.jsonl", '\n{"label": 1,, "text": "y"}', "a.jsonl:2: the line is not valid JSON."),
    "JSON list": (
        "a.json",
        '[{"label": 1}]',
        "a.json:1: the line is not a JSON object.\n  got:      JSON of type list",
    ),
    "JSON too deep": ("a.jsonl", "[" * 100_000, "a.jsonl:1: the line is not valid JSON."),
    "JSON too long a number": ("a.jsonl", "1" * 5000, "a.jsonl:1: the line is not valid JSON."),
    "JSON half a pair": ("a.jsonl", r'{"label": 1, "text": "\ud83d"}', "got:      half of a surrogate pair"),
    "JSON NUL": ("a.jsonl", r'{"label": "\u0000", "text": "y"}', "got:      a NUL character"),
    "only a label": ("a.txt", "pos good\nneg\n", "a.txt:2: the line does not have both a label and a text."),
    "unknown format": ("a.dat", "label;text\n1;good\n", "say what the file is with format"),
    "not UTF-8": ("a.csv", b"label,text\nx,caf\xe9\n", "a.csv:2: the text is not UTF-8."),
    "NUL": ("a.csv", "label,text\nx,a\0b\n", "a.csv:2: the file is not plain text."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_file_is_named_with_line_and_advice(write, case):
    name, content, message = ERRORS[case]
    path = write(content, name)
    with pytest.raises(DataError) as caught:
        read_labelled(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n  try:      " in str(caught.value)


def test_a_field_without_end_is_stopped(write, monkeypatch):
    monkeypatch.setattr(tables, "MAX_FIELD_CHARACTERS", 1000)
    before = csv.field_size_limit(1000)
    try:
        path = write('label,text\na,"' + "x\n" * 2000, "a.csv")
        with pytest.raises(DataError, match=r"a\.csv:2: the record is not valid CSV\.\n  got: +field larger than"):
            read_labelled(path)
    finally:
        csv.field_size_limit(before)


SEVERAL = [(("pos", "short"), "one"), ((), "two"), (("neg",), "three")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "label\ttext\npos|short\tone\n\ttwo\n neg \tthree\n"),
        ("a.csv", "text,label\none,pos| short |pos\ntwo,|\nthree,neg\n"),
        ("a.txt", "pos|short one\n| two\nneg three\n"),
        (
            "a.jsonl",
            '{"text": "one", "label": ["pos", "short"]}\n{"text": "two", "label": []}\n{"text": "three", "label": "neg"}\n',
        ),
    ],
)
def test_an_example_may_have_several_labels_or_none(write, name, content):
    examples = read_labelled(write(content, name), label_separator="|")
    assert [(example.labels, example.text) for example in examples] == SEVERAL
    assert [example.label for example in examples] == ["pos|short", "", "neg"]


def test_labels_may_be_separated_by_blanks_and_be_numbers(write):
    content = '{"text": "one", "label": [1, true]}\n{"text": "two", "label": " 1  true "}\n'
    examples = read_labelled(write(content, "a.jsonl"), label_separator=" ")
    assert [example.labels for example in examples] == [("1", "true")] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,a||b\n", "a.csv:2: one of the labels is not possible.\n  got:      ''"),
        ("a.csv", "text,label\nx,a|nan\n", "a.csv:2: one of the labels is not possible.\n  got:      'nan'"),
        ("a.csv", "text,label\nx,nan\n", "a.csv:2: the label is missing.\n  got:      'nan'"),
        ("a.jsonl", '{"text": "x", "label": null}', "a.jsonl:1: the label is missing.\n  got:      nothing"),
        ("a.jsonl", '{"text": "x", "label": ["a|b"]}', "a.jsonl:1: one of the labels is not possible."),
        ("a.jsonl", '{"text": "x", "label": [[]]}', "a.jsonl:1: key 'label' is not a label."),
        ("a.jsonl", '{"text": "x", "label": {"a": 1}}', "a.jsonl:1: key 'label' is not a label."),
    ],
)
def test_labels_that_are_not_possible_are_named(write, name, content, message):
    with pytest.raises(DataError) as caught:
        read_labelled(write(content, name), label_separator="|")
    assert message in str(caught.value)


def test_nothing_said_about_labels_is_not_the_empty_set(write):
    content = '{"text": "x", "label": null}\n{"text": "y"}\n{"text": "z", "label": []}\n'
    examples = read_labelled(write(content, "a.jsonl"), label_separator="|", require_label=False)
    assert [example.labels for example in examples] == [None, None, ()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "y\ttext\tz\n-1.5\tone\t2e3\n7\ttwo\t.5\n"),
        ("a.csv", "y,text,z\n -1.5,one,+2000 \n7.,two,5E-1\n"),
        ("a.jsonl", '{"text": "one", "y": -1.5, "z": "2e3"}\n{"text": "two", "y": 7, "z": 0.5}\n'),
    ],
)
def test_numbers_are_read_from_columns(write, name, content):
    examples = read_labelled(write(content, name), target_fields=["y", "z"])
    assert [(example.targets, example.text) for example in examples] == [((-1.5, 2000.0), "one"), ((7.0, 0.5), "two")]
    assert [example.labels for example in examples] == [None, None]


def test_a_line_of_text_can_start_with_a_number(write):
    path = write("0.5 fine film\n", "a.txt")
    assert read_labelled(path, target_fields=["score"])[0].targets == (0.5,)
    with pytest.raises(ConfigError, match="a txt file has no columns"):
        read_labelled(path, target_fields=["score", "other"])


@pytest.mark.parametrize("number", ["inf", "-Infinity", "1e999", "0x1", "1_000", "١", "1,5", "1 2", "high"])
def test_what_is_no_finite_number_is_refused(write, number):
    with pytest.raises(DataError, match=r"a\.tsv:3: 'y' is not a number\.\n  got: +"):
        read_labelled(write(f"y\ttext\n1\tone\n{number}\ttwo\n", "a.tsv"), target_fields=["y"])


@pytest.mark.parametrize("number", ["", "nan", "NaN", "None"])
def test_a_missing_number_is_refused_unless_none_is_required(write, number):
    path = write(f"y\ttext\n1\tone\n{number}\ttwo\n", "a.tsv")
    with pytest.raises(DataError, match=r"a\.tsv:3: the label is missing"):
        read_labelled(path, target_fields=["y"])
    assert [example.targets for example in read_labelled(path, target_fields=["y"], require_label=False)] == [(1.0,), None]
    both = write(f"y\tz\ttext\n1\t{number}\tone\n", "b.tsv")
    with pytest.raises(DataError, match=r"b\.tsv:2: 'z' is not a number"):
        read_labelled(both, target_fields=["y", "z"], require_label=False)


def test_options_that_contradict_each_other_are_refused_at_once(write):
    path = write("a b\n", "a.txt")
    for options in ({"label_separator": ""}, {"label_separator": "|", "target_fields": ["y"]}, {"target_fields": []}):
        with pytest.raises(ConfigError):
            labelled_examples(path, **options)


def test_examples_are_read_one_at_a_time(write):
    path = write("label\ttext\n" + "a\tgood\n" * 1000 + "b\n")
    examples = labelled_examples(path)
    assert [next(examples).line for _ in range(1000)] == list(range(2, 1002))
    with pytest.raises(DataError, match="1002"):
        next(examples)


def test_a_file_with_one_class_is_read(write):
    assert pairs(read_labelled(write("a one\na two\n", "a.txt"))) == [("a", "one"), ("a", "two")]


def test_a_line_of_ten_million_characters_is_a_text(write):
    text = "word " * 2_000_000
    for name, content in (("a.tsv", f"label\ttext\na\t{text}\n"), ("a.jsonl", as_jsonl([("a", text)])), ("a.txt", f"a {text}")):
        assert read_labelled(write(content, name))[0].text == text.strip()


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)
KEPT_LABELS = WORDS.filter(lambda label: label not in MISSING)
FEW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(rows=st.lists(st.tuples(KEPT_LABELS, WORDS), min_size=1, max_size=5))
@FEW
def test_what_was_written_is_read(write, rows):
    contents = {
        "csv": as_csv([("label", "text"), *rows]),
        "tsv": as_csv([("label", "text"), *rows], delimiter="\t"),
        "jsonl": as_jsonl(rows),
    }
    for name, content in contents.items():
        assert pairs(read_labelled(write(content, "a." + name))) == rows


STARTS = st.sampled_from(
    [b"", b"label\ttext\n", b"label,text\n", b'{"label": "a", "text": "', b"\xef\xbb\xbf", b"\x1f\x8b\x08\0"]
)
SALTED = st.lists(st.sampled_from([*b'\n\r\t ,"\\{}[]:a1', *b"\0\xc3\xa9\xff"])).map(bytes)


@given(start=STARTS, content=st.binary() | SALTED, required=st.booleans(), format=st.sampled_from([None, *FORMATS]))
@example(start=b"", content=b"\x1f\x8b", required=True, format=None)
@settings(FEW, max_examples=400)
def test_any_bytes_give_examples_or_a_data_error(write, start, content, required, format):  # noqa: A002
    for packed in (False, True):
        raw = start + content
        path = write(gzip.compress(raw) if packed else raw, "anything")
        try:
            examples = read_labelled(path, format=format, require_label=required)
        except DataError:
            continue
        assert examples
        assert all(example.text and "\0" not in example.text for example in examples)
        assert all(example.label or not required for example in examples)
        " ".join(example.text for example in examples).encode()
