"""Rows of a file, by its ending: JSON Lines, JSON, CSV or Parquet; those of text may be gzipped.

They are read here and not by a library's loader because a row that cannot be used must be named by file and line, and
must not cost the others.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from selfreward import UserError
from selfreward.formats import arrow_rows, csv_rows, json_rows
from selfreward.formats.cells import BadRow
from selfreward.formats.json_rows import Row, Rows

T = TypeVar("T")

_TEXT = {
    ".jsonl": json_rows.rows,
    ".ndjson": json_rows.rows,
    ".json": json_rows.rows,
    ".csv": csv_rows.rows,
    ".tsv": csv_rows.rows,
}
ENDINGS = (*_TEXT, ".parquet")


def ending(path: Path) -> str:
    """``.jsonl`` of ``rows.jsonl.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file of text, unpacked.

    Raises:
        UserError: it does not open, cannot be unpacked to its end, or is UTF-16.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"data file {path}:1: byte 0xff or 0xfe first, so it is UTF-16; save it as UTF-8")
            file.seek(0)
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"data file {path}: not readable: {problem}") from None


def rows(path: Path, refused: list[str]) -> Rows:
    """The rows of a file, each with its place.

    Args:
        path: of one of the :data:`ENDINGS`, those of text also with ``.gz`` behind it.
        refused: gets a ``place: why`` for every row that cannot be read.

    Raises:
        UserError: nothing can be read: no such file, not what its ending says, another encoding.
    """
    if ending(path) == ".parquet":
        yield from arrow_rows.parquet(str(path), refused)
    elif ending(path) in _TEXT:
        with opened(path) as file:
            yield from _TEXT[ending(path)](str(path), file, refused)
    else:
        raise UserError(
            f"data file {path}: its ending does not say what it holds; known are {', '.join(ENDINGS)}, and .gz after "
            "those of text"
        )


def parsed(found: Rows, parse: Callable[[Row], Iterable[T]], refused: list[str]) -> Iterator[tuple[str, T]]:
    """What ``parse`` makes of each row, with its place; where it raises BadRow, the row is refused with that reason."""
    for place, row in found:
        try:
            yield from ((place, each) for each in parse(row))
        except BadRow as problem:
            refused.append(f"{place}: {problem}")


def read(path: Path, parse: Callable[[Row], T]) -> tuple[list[T], list[str]]:
    """What ``parse`` makes of the rows of a file, and ``place: why`` for every row that is refused.

    Raises:
        UserError: the file does not open, or has no usable row.
    """
    refused: list[str] = []
    found = [each for _, each in parsed(rows(path, refused), lambda row: [parse(row)], refused)]
    if not found:
        raise none_usable(path, refused)
    return found, refused


def none_usable(path: Path | str, refused: list[str]) -> UserError:
    """That nothing is left of a file, with the first few reasons."""
    reasons = "".join(f"\n  {reason}" for reason in refused[:3])
    return UserError(f"data file {path}: no usable row, {len(refused)} refused{', such as' * bool(reasons)}{reasons}")
