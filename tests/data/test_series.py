"""Readers of series of numbers."""

import gzip
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carousel.data import SERIES_FORMATS, read_series, series_values
from carousel.data.source import parse_number
from carousel.errors import ConfigError, DataError

HEADER = (
    "@problemName Toy\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength false\n"
    "@classLabel true up down\n@data\n"
)
TS = "# made up\n" + HEADER + "1,2.5,-3e-1:4,5,6:up\n\n0.1:7:down\n"
CSV = "id,x,y,label\na,1,4,up\na,2.5,5,up\na,-3e-1,6,up\nb,0.1,7,down\n"
VALUES = [[[1, 4], [2.5, 5], [-0.3, 6]], [[0.1, 7]]]


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="data.ts"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def check(found):
    assert [series.label for series in found] == ["up", "down"]
    for series, values in zip(found, VALUES, strict=True):
        assert series.values.dtype == np.float32
        assert np.array_equal(series.values, np.array(values, np.float32))


CONTENTS = {"a.ts": TS, "a.csv": CSV, "a.tsv": CSV.replace(",", "\t"), "a.tab": CSV.replace(",", "\t")}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_is_known_by_suffix_or_first_line(write, name):
    content = CONTENTS[name]
    windows = b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode()
    check(read_series(write(content, name)))
    check(read_series(write(gzip.compress(windows), name.upper() + ".gz")))
    check(read_series(write(windows, "unknown")))
    check(read_series(write(content.replace("\n", "\r"), "data.unknown")))
    assert SERIES_FORMATS == ("csv", "ts", "tsv")


def test_a_series_knows_its_place(write):
    path = write(TS)
    assert [(series.path, series.line, series.name) for series in read_series(path)] == [
        (str(path), 9, None),
        (str(path), 11, None),
    ]
    assert [(series.line, series.name) for series in read_series(write(CSV, "a.csv"))] == [(2, "a"), (5, "b")]


def test_the_rows_of_a_series_need_not_stand_together(write):
    rows = "id,x,label\nb,1,up\na,5,down\nb,2,up\na,6,\n b ,3,up\n"
    found = read_series(write(rows, "a.csv"))
    assert [(series.name, series.label, series.values[:, 0].tolist()) for series in found] == [
        ("b", "up", [1, 2, 3]),
        ("a", "down", [5, 6]),
    ]


def test_rows_can_be_sorted_by_time_and_channels_chosen(write):
    path = write("t,y,id,x,class\n3,1,a,10,u\n1,2,a,20,u\n2.5,3,a,30,u\n1,4,b,40,v\n", "a.csv")
    found = read_series(path, label_field="class", time_field="t", feature_fields=["x", "y"])
    assert [series.values.tolist() for series in found] == [[[20, 2], [30, 3], [10, 1]], [[40, 4]]]


def test_numbers_to_foretell_are_constant_within_a_series(write):
    path = write("id,x,p,q\na,1,0.5,-1\na,2,0.5,-1\nb,3,1e1,7\n", "a.csv")
    assert [series.targets for series in read_series(path, target_fields=["p", "q"])] == [(0.5, -1.0), (10.0, 7.0)]
    ts = HEADER.replace("@classLabel true up down", "@targetLabel true") + "1:2:3.5\n4:5:-1\n"
    assert [series.targets for series in read_series(write(ts), target_fields=["any"])] == [(3.5,), (-1.0,)]
    assert [(series.label, series.targets) for series in read_series(write(ts))] == [("3.5", None), ("-1", None)]


def test_labels_are_not_needed_to_predict(write):
    bare = HEADER.replace("@classLabel true up down", "@classLabel false")
    for content, name in ((bare + "1,2:3,4\n", "a.ts"), ("id,x,y\na,1,3\na,2,4\n", "a.csv"), (HEADER + "1,2:3,4:?\n", "b.ts")):
        with pytest.raises(DataError, match="label"):
            read_series(write(content, name))
        (series,) = read_series(write(content, name), require_label=False)
        assert (series.label, series.values.tolist()) == (None, [[1, 3], [2, 4]])


@pytest.mark.parametrize("hole", ["?", "NaN", "nan"])
@pytest.mark.parametrize("format", ["ts", "csv"])
def test_a_missing_value_is_refused_or_filled(write, hole, format):  # noqa: A002
    columns = [["1", hole, "3", hole], [hole, "5", hole, "7"]]
    if format == "ts":
        content = HEADER + ":".join(",".join(column) for column in columns) + ":up\n"
    else:
        content = "id,x,y,label\n" + "".join(f"a,{x},{y},up\n" for x, y in zip(*columns, strict=True))
    path = write(content, "a." + format)
    line = 8 if format == "ts" else 2
    with pytest.raises(DataError, match=rf"a\.{format}:{line}: .* is missing\.\n  got: +'(\?|NaN|nan)'\n  try: .*zero"):
        read_series(path)
    filled = {name: read_series(path, missing=name)[0].values.T.tolist() for name in ("zero", "previous")}
    assert filled == {"zero": [[1, 0, 3, 0], [0, 5, 0, 7]], "previous": [[1, 1, 3, 3], [0, 5, 5, 7]]}
    assert np.isnan(read_series(path, missing="keep")[0].values.T).tolist() == [
        [False, True, False, True],
        [True, False, True, False],
    ]


def test_an_empty_cell_of_a_table_is_a_missing_value(write):
    path = write("id,x,label\na,1,u\na,,u\n", "a.csv")
    with pytest.raises(DataError, match=r"a\.csv:3: 'x' is missing"):
        read_series(path)
    assert read_series(path, missing="previous")[0].values.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    "value", ["inf", "-Infinity", "1e39", "1e999", "1_0", "0x1", "one", "", " ", "1 2", "١", "--1", "1e", "."]
)
@pytest.mark.parametrize("missing", ["refuse", "keep"])
def test_what_is_no_number_is_refused(write, value, missing):
    with pytest.raises(DataError, match=r"data\.ts:8: value 2 is not a number\.\n  got: +"):
        read_series(write(HEADER + f"1,{value},3:4,5,6:up\n"), missing=missing)
    if value.strip():
        with pytest.raises(DataError, match=r"a\.csv:3: 'y' is not a number\.\n  got: +"):
            read_series(write(f"id,x,y,label\na,1,2,u\na,3,{value},u\n", "a.csv"), missing=missing)


def ts(*lines, **replaced):
    content = HEADER
    for old, new in replaced.items():
        content = content.replace(old, new)
    return content + "\n".join(lines) + "\n"


ERRORS = {
    "nothing": ("", "the file holds no series."),
    "comments": ("# nothing\n", "the file holds no series."),
    "only a header": (HEADER, "the file holds no series."),
    "no data line": (HEADER.replace("@data\n", ""), ":6: the file ends within its header."),
    "values before data": (HEADER.replace("@data\n", "1,2:3,4:up\n"), ":7: this line of the header is not understood."),
    "time stamps declared": (ts(false="true"), ":2: series with time stamps are not read."),
    "time stamps": (ts("(0,1.5),(1,2.5):(0,1),(1,2):up"), ":8: series with time stamps are not read."),
    "neither true nor false": (
        HEADER.replace("@univariate false", "@univariate maybe"),
        ":3: @univariate is neither true nor false.",
    ),
    "not a count": (
        HEADER.replace("@dimensions 2", "@dimensions two"),
        ":4: @dimensions is not a number of steps or channels.",
    ),
    "a channel too few": (ts("1,2:up"), ":8: the line has another number of channels.\n  got:      1 where there are 2"),
    "a channel too many": (ts("1:2:3:up"), ":8: the line has another number of channels.\n  got:      3 where there are 2"),
    "other channels later": (ts("1:2:3:up", "1:2:up").replace("@dimensions 2\n", ""), ":8: the line has another number"),
    "channels of other lengths": (ts("1,2:3:up"), ":8: the channels differ in length.\n  got:      1 to 2 steps"),
    "an empty channel": (ts("1,2::up"), ":8: a channel is empty."),
    "an unknown label": (ts("1:2:upp"), ":8: the label is not one of those of the header. Did you mean 'up'?"),
    "no label": (ts("1:2:"), ":8: the label is missing."),
    "another length": (
        ts("1,2:3,4:up", "1:2:up").replace("@equalLength false", "@equalLength true"),
        ":9: the series has another length.\n  got:      1 steps where there are 2",
    ),
    "not the length that is said": (
        ts("1,2:3,4:up").replace("@equalLength false", "@equalLength true\n@seriesLength 3"),
        ":9: the series has another length.",
    ),
    "all colons": (ts(":" * 1_000_000), ":8: the line has another number of channels."),
    "not UTF-8": (HEADER.encode() + b"1:2:\xff\n", ":8: the text is not UTF-8."),
    "NUL": (ts("1:\0:up"), ":8: the file is not plain text."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_ts_file_is_named_with_line_and_advice(write, case):
    content, message = ERRORS[case]
    path = write(content)
    with pytest.raises(DataError) as caught:
        read_series(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n  try:      " in str(caught.value)


TABLE_ERRORS = {
    "no id": ("name,x,label\na,1,u\n", ":1: column 'id' is missing."),
    "no label": ("id,x\na,1\n", ":1: column 'label' is missing."),
    "no values": ("id,label\na,u\n", ":1: there is no column of values."),
    "two labels": ("id,x,label\na,1,u\nb,1,v\na,2,v\n", ":4: series 'a' has two labels.\n  got:      'v'; on line 2: 'u'"),
    "no label anywhere": ("id,x,label\na,1,\n", ":2: the label is missing."),
    "empty id": ("id,x,label\n ,1,u\n", ":2: column 'id' is empty."),
    "too few fields": ("id,x,label\na,1\n", ":2: the record has too few fields."),
    "a comma in a number": ('id,x,label\na,"1,5",u\n', ":2: 'x' is not a number.\n  got:      '1,5'"),
    "empty": ("", "the file holds no series."),
}


@pytest.mark.parametrize("case", TABLE_ERRORS)
def test_a_bad_table_is_named_with_line_and_advice(write, case):
    content, message = TABLE_ERRORS[case]
    with pytest.raises(DataError) as caught:
        read_series(write(content, "a.csv"))
    assert message in str(caught.value)
    assert "\n  try:      " in str(caught.value)


def test_targets_and_times_that_are_no_numbers_are_named(write):
    path = write("id,x,t,y\na,1,0,2\na,2,one,2\n", "a.csv")
    with pytest.raises(DataError, match=r"a\.csv:3: 't' is not a number"):
        read_series(path, target_fields=["y"], time_field="t")
    with pytest.raises(DataError, match=r"a\.csv:2: 'y' is not a number"):
        read_series(write("id,x,y\na,1,high\n", "a.csv"), target_fields=["y"])


@pytest.mark.parametrize("options", [{"format": "arff"}, {"missing": "drop"}, {"target_fields": []}])
def test_an_unknown_option_is_refused(write, options):
    with pytest.raises(ConfigError):
        read_series(write(TS), **options)


@given(pieces=st.lists(st.text(st.sampled_from(list("0123456789eE+-. ?")), max_size=6), min_size=1, max_size=6))
@example(pieces=["1", " ", "3"])
@example(pieces=["1", "", "3"])
@settings(max_examples=500)
def test_the_fast_way_reads_what_the_slow_one_does(pieces):
    text = ",".join(pieces)
    fast = series_values._parsed(text)
    if fast is not None and len(fast) == len(pieces):
        expected = [np.nan if piece.strip() == "?" else parse_number(piece) for piece in pieces]
        assert None not in expected or not np.isfinite(fast).all()
        assert all(slow is None or slow == quick or quick != quick for slow, quick in zip(expected, fast, strict=True))


def test_thousands_of_channels_and_long_lines_are_read_soon(write):
    channels, steps = 2000, 200
    values = np.random.default_rng(0).normal(size=(channels, steps)).round(4)
    line = ":".join(",".join(map(str, row)) for row in values) + ":up"
    start = time.process_time()
    (series,) = read_series(write(HEADER.replace("@dimensions 2", f"@dimensions {channels}") + line))
    assert time.process_time() - start < 2  # 0.1 s here
    assert np.array_equal(series.values, values.T.astype(np.float32))
    table = "id,label," + ",".join(f"c{n}" for n in range(channels)) + "\n"
    table += "".join(f"a,u,{','.join(map(str, step))}\n" for step in values.T)
    (series,) = read_series(write(table, "a.csv"))
    assert np.array_equal(series.values, values.T.astype(np.float32))
