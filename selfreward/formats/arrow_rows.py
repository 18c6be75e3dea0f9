"""Rows of Arrow tables, and of the Parquet files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from selfreward import UserError
from selfreward.formats.json_rows import Rows

BATCH = 1000
"""Rows that are in memory at a time."""


def parquet(name: str, refused: list[str]) -> Rows:
    """The rows of a Parquet file, one batch in memory at a time.

    Raises:
        UserError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from numbered(name, pq.ParquetFile(name).iter_batches(BATCH), refused)
    except (OSError, pa.ArrowException) as problem:
        raise UserError(f"data file {name}: not readable: {problem}") from None


def numbered(name: str, tables: Iterable[Any], refused: list[str]) -> Rows:
    """The rows of some tables or record batches, counted from 1: ``answers.parquet: row 3``."""
    number = 0
    for part in tables:
        for row in _rows(part):
            number += 1
            place = f"{name}: row {number}"
            if isinstance(row, dict):
                yield place, row
            else:
                refused.append(f"{place}: {row}")


def _rows(part: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a table; one with bytes that are no text is a message instead, and does not cost its neighbours."""
    try:
        yield from part.to_pylist()
    except UnicodeDecodeError as problem:
        if len(part) == 1:
            yield f"not usable as text: {problem}"
            return
        for row in range(len(part)):
            yield from _rows(part.slice(row, 1))
