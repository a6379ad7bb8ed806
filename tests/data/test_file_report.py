"""What a data file holds."""

import dataclasses
import gzip
import json

import pytest

from carousel.data import describe_file
from carousel.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="data.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


GOOD = "label\ttext\n" + "".join(f"{'pos' if n % 3 else 'neg'}\ttext number {n} {'and more ' * (n % 5)}\n" for n in range(60))


def test_a_file_in_good_order_has_no_warnings(write):
    path = write(GOOD)
    report = describe_file(path)
    assert (report.kind, report.format, report.text_field, report.label_field) == ("text", "tsv", "text", "label")
    assert report.records == 60
    assert list(report.labels.items()) == [("pos", 40), ("neg", 20)]
    assert (report.lengths.unit, report.lengths.shortest, report.lengths.median, report.lengths.longest) == ("words", 3, 7, 11)
    assert (report.lengths.p90, report.lengths.mean) == (11, 7.0)
    assert report.warnings == ()
    json.dumps(dataclasses.asdict(report))
    assert describe_file(write(gzip.compress(GOOD.encode()), "data.tsv.gz")).records == 60


def test_all_problems_are_found_not_only_the_first(write):
    lines = ["label,text", "a,fine", "b,caf\xe9", "a,too,many", "b,fine again", "a", "b,\xff\xfe", "a,last"]
    report = describe_file(write("\n".join(lines).encode("latin-1"), "a.csv"))
    assert [problem.line for problem in report.problems] == [3, 4, 6, 7]
    assert report.problem_count == 4
    assert report.records == 5  # the broken bytes are replaced, the broken records are left out
    assert "not UTF-8" in report.problems[0].message
    assert "too many fields" in report.problems[1].message
    assert "4 problems that a reader refuses." in report.warnings
    limited = describe_file(write("\n".join(lines).encode("latin-1"), "a.csv"), problem_limit=2)
    assert (len(limited.problems), limited.problem_count) == (2, 4)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.jsonl", '{"label": "a", "text": "x"}\n{"label":\n[1]\n{"label": "b"}\n{"label": "b", "text": "y"}\n', [2, 3, 4]),
        ("a.txt", "a one\nb\na two\n", []),
        ("a.ts", "@classLabel true u v\n@data\n1,2:u\n1,x:u\n1,2:w\n3,4:v\n", [4, 5]),
        ("a.csv", "id,x,label\na,1,u\na,z,u\n" + "b,2,v\n" * 9, [3]),
        ("b.csv", 'label,text\na,fine\na,"open\nb,never read\n', [3]),
    ],
)
def test_a_bad_record_does_not_end_the_search(write, name, content, lines):
    report = describe_file(write(content, name))
    assert [problem.line for problem in report.problems] == lines
    assert report.records >= 1


def test_a_file_that_breaks_off_is_described_so_far(write):
    packed = gzip.compress("".join(f"label{n % 2} text {n**7}\n" for n in range(5000)).encode())
    report = describe_file(write(packed[: len(packed) // 2], "a.txt.gz"))
    assert 1000 < report.records < 5000
    assert "gzip file is damaged" in report.problems[0].message


def test_repeats_and_contradictions_are_counted(write):
    rows = ["a\tone two", "b\tthree", "a\tOne  Two", "b\tone two", "a\tthree", "a\tcafe\u0301", "a\tcaf\u00e9", "a\tthree"]
    report = describe_file(write("label\ttext\n" + "\n".join(rows) + "\n"))
    assert (report.repeats.exact, report.repeats.similar, report.repeats.contradictions) == (3, 5, 2)
    assert report.repeats.lines == ((4, 2), (5, 2), (6, 3), (8, 7), (9, 3))
    assert any("same text has different labels" in warning for warning in report.warnings)


def test_overlap_and_new_labels_are_found(write):
    train = write("label\ttext\n" + "".join(f"a\ttext {n}\nb\tother {n}\n" for n in range(10)), "train.tsv")
    valid = write("label\ttext\na\tTEXT 3\nb\tfresh\nc\tother 9\n", "valid.tsv")
    report = describe_file(valid, other=train)
    assert (report.overlap, report.new_labels, report.other) == (2, ("c",), str(train))
    assert any("2 of 3 records are also in" in warning for warning in report.warnings)
    assert any("does not have: c" in warning for warning in report.warnings)
    assert describe_file(train, other=valid).new_labels == ()


def test_empty_texts_and_missing_labels_are_counted(write):
    report = describe_file(write("label\ttext\na\tone\nb\t \n\tthree\nb\t\n"))
    assert (report.empty, report.empty_count, report.unlabelled) == ((3, 5), 2, 1)
    assert report.repeats.exact == 0


def test_one_label_and_rare_ones_are_said(write):
    assert any(
        "All labels are the same: 'a'." in text for text in describe_file(write("a one\na two\na three\n", "a.txt")).warnings
    )
    rare = describe_file(write(GOOD + "odd\tonly once\n"))
    assert "1 label with fewer than 5 examples: odd." in rare.warnings


def test_odd_characters_are_named(write):
    odd = [
        "zero\u200bwidth",
        "bell\x07",
        "broken \ufffd",
        "cafÃ©",
        "it â€™s",
        "private \ue000",
        "soft\u00adhyphen",
        "fine café – ’",
    ]
    report = describe_file(write("label\ttext\n" + "".join(f"a\t{text}\n" for text in odd)))
    found = {character.kind.split()[0]: (character.records, character.line) for character in report.odd_characters}
    assert found == {"invisible": (2, 2), "control": (1, 3), "replacement": (1, 4), "UTF-8": (2, 5), "private": (1, 7)}


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("a.csv", "review,stars\nfine film,5\nbad film,1\n", ("review", "stars")),
        ("a.tsv", "n\tcontent\tclass\n1\tfine film\ta\n2\tbad film\tb\n", ("content", "class")),
        ("a.jsonl", '{"sentence": "fine", "target": 1}\n{"sentence": "bad", "target": 0}\n', ("sentence", "target")),
        ("a.csv", "p,q\nu,a longer text here\nv,another long text\nu,third of them\nv,last one\n", ("q", "p")),
        ("unknown", "Sentiment\tReview\npos\tfine\nneg\tbad\n", ("Review", "Sentiment")),
        ("a.csv", "text,other\nfine,1\nbad,2\n", ("text", None)),
    ],
)
def test_columns_are_guessed_and_said(write, name, content, fields):
    report = describe_file(write(content, name))
    assert (report.text_field, report.label_field) == fields
    assert report.guessed == tuple(field for field in fields if field not in ("text", None))
    assert report.records > 0
    assert report.problem_count == 0
    assert sum("was not asked for" in warning for warning in report.warnings) == len(report.guessed)


def test_series_are_recognised(write):
    content = "id,x,y,label\na,1,2,u\na,3,4,u\nb,5,6,v\nc,1,2,u\nc,3,4,u\n"
    report = describe_file(write(content, "a.csv"))
    assert (report.kind, report.records, report.channels, report.labels) == ("series", 3, 2, {"u": 2, "v": 1})
    assert (report.lengths.unit, report.lengths.longest, report.repeats.exact) == ("steps", 2, 1)
    ts = describe_file(write("@classLabel true u v\n@data\n1,2,3:u\n4:v\n", "unknown"))
    assert (ts.kind, ts.format, ts.records, ts.channels) == ("series", "ts", 2, 1)


def test_several_labels_are_counted_one_by_one(write):
    report = describe_file(write("label\ttext\na|b\tone\nb\ttwo\n\tthree\n"), label_separator="|")
    assert (report.labels, report.unlabelled) == ({"b": 2, "a": 1}, 0)


def test_texts_without_labels_are_texts(write):
    report = describe_file(write("the first line\nanother one\nsomething else\nand so on\nor not\nwho knows\n", "a.txt"))
    assert (report.records, report.unlabelled, report.label_field, report.problem_count) == (6, 6, None, 0)


def test_what_cannot_be_read_at_all_is_an_error(tmp_path, write):
    with pytest.raises(DataError, match="no such file"):
        describe_file(tmp_path / "missing.tsv")
    report = describe_file(write("", "empty.tsv"))
    assert (report.records, report.lengths) == (0, None)
    assert report.warnings == ("There is no record that can be read.",)


def test_the_right_format_can_be_said(write):
    report = describe_file(write("label,text\na,one\nb,two\n", "data.dat"), format="csv")
    assert (report.format, report.records) == ("csv", 2)
