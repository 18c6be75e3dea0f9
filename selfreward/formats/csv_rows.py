"""Rows of CSV: a header, then one row a line, quoted cells over several lines allowed; every cell is text.

The separator is the one of comma, semicolon and tab that is most frequent in the header.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from selfreward import UserError
from selfreward.formats.json_rows import Rows, described

_CELL = 1 << 27  # characters; Python's own limit of 131,072 is shorter than some conversations
_LONE = re.compile(r"[\ud800-\udfff]")


def rows(name: str, file: BinaryIO, refused: list[str]) -> Rows:
    """The rows of a CSV file, each with the line on which it begins.

    Args:
        name: the file, for messages.
        file: its bytes, in UTF-8.
        refused: gets a ``place: why`` for every row that does not fit the header or is not UTF-8.

    Raises:
        UserError: two columns have the same name.
    """
    csv.field_size_limit(_CELL)
    decoded = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    header: list[str] | None = None
    for place, cells in _records(name, decoded, refused):
        if header is None:
            header = cells
            if twice := sorted({column for column in header if header.count(column) > 1}):
                raise UserError(f"data file {place}: the header has the column '{twice[0]}' twice")
        elif len(cells) != len(header):
            refused.append(f"{place}: {len(cells)} cells, and the header has {len(header)} columns")
        else:
            yield place, dict(zip(header, cells, strict=True))


def _records(name: str, file: TextIO, refused: list[str]) -> Iterator[tuple[str, list[str]]]:
    first = file.readline()
    reader = csv.reader(_chained(first, file), delimiter=max(",;\t", key=first.count), strict=True)
    while True:
        place = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            refused.append(f"{place}: not usable as CSV: {problem}")
            continue
        if lone := _LONE.search("".join(cells)):
            refused.append(f"{place}: {described(lone[0])}")
        elif cells:
            yield place, cells


def _chained(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest
