"""Opening text, and writing files whole or not at all."""

import gzip
import io
import json
import math
import sys

import pytest

from carousel.data import files, numbered_lines, read_json, replacing, write_json
from carousel.errors import DataError, OutputError


def lines_of(path):
    return [line for _, line in numbered_lines(path)]


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo\n\nthr\xc3\xa9e",
        b"one\r\ntwo\r\n\r\nthr\xc3\xa9e\r\n",
        b"one\rtwo\r\rthr\xc3\xa9e\r",
        b"\xef\xbb\xbfone\ntwo\n\nthr\xc3\xa9e\n",
        gzip.compress(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthr\xc3\xa9e"),
        gzip.compress(b"one\ntw") + gzip.compress(b"o\n\nthr\xc3\xa9e"),
    ],
    ids=["unix", "windows", "macintosh", "byte order mark", "gzip", "gzip in two parts"],
)
def test_line_ends_byte_order_marks_and_gzip_are_understood(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert list(numbered_lines(path)) == [(1, "one"), (2, "two"), (3, ""), (4, "thrée")]


def test_only_line_ends_end_a_line(tmp_path):
    path = tmp_path / "file"
    path.write_text("a\u2028b\x0cc\x85d\n", encoding="utf-8")
    assert lines_of(path) == ["a\u2028b\x0cc\x85d"]


@pytest.mark.parametrize("wrap", [lambda b: io.TextIOWrapper(io.BytesIO(b)), lambda b: io.StringIO(b.decode())])
def test_a_dash_is_standard_input(monkeypatch, wrap):
    monkeypatch.setattr(sys, "stdin", wrap("eins\nzwei é".encode()))
    assert list(numbered_lines("-")) == [(1, "eins"), (2, "zwei é")]


def test_standard_input_may_be_gzip_and_stays_open(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(gzip.compress(b"packed")))
    monkeypatch.setattr(sys, "stdin", stream)
    assert lines_of("-") == ["packed"]
    assert not stream.buffer.closed


def test_no_standard_input_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: there is no standard input"):
        lines_of("-")


def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine\nna\xc3\xafve caf\xe9\n")
    with pytest.raises(DataError) as caught:
        lines_of(path)
    assert str(caught.value) == (
        f"{path}:2: the text is not UTF-8.\n"
        "  got:      byte 0xe9 at byte 11 of the line\n"
        "  try:      convert the file: iconv -f LATIN1 -t UTF-8 OLD > NEW"
    )
    assert (caught.value.path, caught.value.line) == (str(path), 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_recognised_or_refused(tmp_path, encoding):
    path = tmp_path / "wide.txt"
    path.write_text("label\ttext\n", encoding=encoding)
    with pytest.raises(DataError, match="iconv -f UTF-16 -t UTF-8"):
        lines_of(path)


def test_a_nul_byte_is_named_with_its_line(tmp_path):
    path = tmp_path / "binary"
    path.write_bytes(b"fine\nab\0c\n")
    with pytest.raises(DataError, match=r"binary:2: the file is not plain text\.\n  got: +a NUL byte at character 3"):
        lines_of(path)


def test_a_missing_file_is_said_with_the_nearest_name(tmp_path):
    (tmp_path / "train.tsv").write_text("x")
    with pytest.raises(DataError, match=r"trian\.tsv: there is no such file\. Did you mean '.*train\.tsv'\?"):
        lines_of(tmp_path / "trian.tsv")
    with pytest.raises(DataError, match=r"there is no such file\.\n"):
        lines_of(tmp_path / "nowhere" / "train.tsv")


def test_a_directory_is_said(tmp_path):
    with pytest.raises(DataError, match="this is a directory, not a file"):
        lines_of(tmp_path)


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000, "{}/file/inner"])
def test_an_impossible_path_is_a_data_error(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        lines_of(path.format(tmp_path))


def test_an_unreadable_file_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "open", refuse)  # the user who runs the tests may be allowed to read everything
    with pytest.raises(DataError, match=r"mine\.txt: the file may not be read"):
        lines_of(tmp_path / "mine.txt")


@pytest.mark.parametrize("damage", [lambda b: b[:-12], lambda b: b[:40] + bytes(8) + b[48:], lambda b: b[:3] + b"\xff" * 30])
def test_a_damaged_gzip_file_is_said(tmp_path, damage):
    path = tmp_path / "file.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(32, 127)) * 50)))
    with pytest.raises(DataError, match=r"file\.gz:1: the gzip file is damaged|file\.gz: the file cannot be read"):
        lines_of(path)


def test_a_gzip_file_that_grows_without_end_is_stopped(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"0123456789\n" * 1000))
    monkeypatch.setattr(files, "MAX_DECOMPRESSED_CHARACTERS", 100)
    with pytest.raises(DataError, match=r"bomb\.gz:10: the compressed file holds too much text"):
        lines_of(path)
    path.write_bytes(b"0123456789\n" * 1000)
    assert len(lines_of(path)) == 1000


def test_a_small_gzip_file_that_becomes_huge_is_stopped_early(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNSUSPECTED_CHARACTERS", 50_000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"0123456789\n" * 100_000))  # 2.7 kB hold 1.1 MB
    with pytest.raises(DataError, match=r"bomb\.gz:[0-9]+: the compressed file holds too much text") as caught:
        lines_of(path)
    assert caught.value.line * 11 < 100 * path.stat().st_size + 12
    text = "".join(f"line {n**5}\n" for n in range(10_000))
    path.write_bytes(gzip.compress(text.encode()))
    assert lines_of(path) == text.splitlines()


def test_what_is_wrong_can_be_collected_instead(tmp_path):
    path = tmp_path / "mixed"
    path.write_bytes(b"fine\ncaf\xe9 \xe9\nna\xc3\xafve\na\0b\n")
    problems = []
    assert list(numbered_lines(path, problems=problems.append)) == [
        (1, "fine"),
        (2, "caf\ufffd \ufffd"),
        (3, "naïve"),
        (4, "a\ufffdb"),
    ]
    assert [problem.line for problem in problems] == [2, 4]
    assert "not UTF-8" in str(problems[0])
    assert "NUL" in str(problems[1])


def test_an_endless_line_is_stopped(tmp_path, monkeypatch):
    path = tmp_path / "long"
    path.write_bytes(b"ok\n" + b"x" * 101)
    monkeypatch.setattr(files, "MAX_LINE_CHARACTERS", 100)
    with pytest.raises(DataError, match=r"long:2: the line is too long\.\n  got: +more than 100 characters"):
        lines_of(path)


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def fail_in_the_middle():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "curve.png"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".png"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["no/folder/file.json", "file/inner.json", "."])
def test_a_file_that_cannot_be_written_is_said(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="the file cannot be written"):
        write_json(tmp_path / name, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_comes_back_as_it_was(tmp_path):
    content = {"tokens": ["é", "\u2028", "😀", '"', "\n"], "size": 3, "share": 0.1, "none": None}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": math.nan})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[1,\n,2]", "[" * 100_000, "1" * 5000])
def test_a_file_that_is_not_json_is_said(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match="the file is not valid JSON"):
        read_json(path)


def test_the_line_of_a_json_mistake_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([1, 2], indent=1).replace("2", "?"))
    with pytest.raises(DataError, match=r"a\.json:3: "):
        read_json(path)


@pytest.mark.parametrize("count", [0, 1, 2, 4095, 4096, 4097, 9000])
def test_a_whole_file_is_its_lines(tmp_path, count):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {n}\r\n" for n in range(count)), newline="")
    assert files.read_text(path) == "\n".join(f"line {n}" for n in range(count))
    if count > 1:
        with pytest.raises(DataError, match=r"a\.txt:2: the file is too long for what it should be"):
            files.read_text(path, max_characters=8)
