"""Tables: TSV and CSV files as numbered rows of fields, whose first row names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from carousel.data.source import Lines, Source, listed
from carousel.errors import DataError

__all__ = ["table"]

MAX_FIELD_CHARACTERS = 1 << 24

Rows = Iterator[tuple[int, list[str]]]

_ADVICE = {
    "tsv": "in a TSV file a record is one line, and a text holds no tab; else write CSV",
    "csv": "a text that holds a comma or a line break must stand in double quotes",
}


def table(lines: Lines, format: str, source: Source) -> tuple[int, list[str], Rows]:  # noqa: A002 - the word users know it by
    """The columns of a table and its rows, each as long as there are columns.

    Args:
        lines: the lines of the file.
        format: ``csv`` or ``tsv``.
        source: the file.

    Returns:
        The line of the header, the names of the columns (none for an empty file), and the rows with their lines.
    """
    rows = _csv_rows(lines, source) if format == "csv" else _tsv_rows(lines)
    header = next(rows, None)
    if header is None:
        return 0, [], rows
    names = [name.strip() for name in header[1]]
    return header[0], names, _checked(rows, names, _ADVICE[format], source)


def _checked(rows: Rows, names: list[str], advice: str, source: Source) -> Rows:
    for line, row in rows:
        if len(row) != len(names):
            count = "few" if len(row) < len(names) else "many"
            got = f"{len(row)} fields for the {len(names)} columns {listed(names)}"
            source.refuse(source.error(line, f"the record has too {count} fields.", got=got, advice=advice))
        else:
            yield line, row


def _tsv_rows(lines: Lines) -> Rows:
    return ((number, _tsv_fields(line)) for number, line in lines if line.strip(" "))


def _tsv_fields(line: str) -> list[str]:
    fields = line.split("\t")
    if '"' not in line:
        return fields
    _allow_long_fields()
    try:
        return next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return fields


def _csv_rows(lines: Lines, source: Source) -> Rows:
    last = 0

    def fed() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line + "\n"

    _allow_long_fields()
    reader = csv.reader(fed(), strict=True)
    while True:
        start = last + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            source.refuse(_invalid(start, error, source))
            return  # where the next record starts is not known
        if len(row) > 1 or any(field.strip() for field in row):
            yield start, row


def _invalid(line: int, error: csv.Error, source: Source) -> DataError:
    advice = "a quote inside a quoted field is written twice, and every quoted field is closed"
    return source.error(line, "the record is not valid CSV.", got=str(error), advice=advice)


def _allow_long_fields() -> None:
    # The limit belongs to the whole process. It is raised and never lowered, so that threads cannot trip each other.
    if csv.field_size_limit() < MAX_FIELD_CHARACTERS:
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
