"""JSON Lines, plain or gzipped: one object a line.

The files are untrusted: a line that cannot be used is refused by file and line, and the others are read all the same.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfreward import UserError


def objects(path: Path, refused: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its place (``answers.jsonl:3``); empty lines are passed over.

    Args:
        path: a ``.jsonl`` file, or one compressed as ``.gz``.
        refused: gets a ``place: why`` for every line that is not a JSON object.

    Raises:
        UserError: the file does not open, or is not what its ending says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    found = json.loads(line)
                    if rb"\ud" in line.lower():  # JSON can spell half a character, which no file or tokenizer can take
                        json.dumps(found, ensure_ascii=False).encode()
                except (ValueError, RecursionError) as problem:  # bad JSON, bad UTF-8, or nested too deeply
                    refused.append(f"{place}: not usable as JSON: {problem}")
                    continue
                if isinstance(found, dict):
                    yield place, found
                else:
                    refused.append(f"{place}: a JSON object is wanted, got {type(found).__name__}")
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"data file {path}: not readable: {problem}") from None


def some_or_refuse(path: Path, usable: int, refused: list[str]) -> None:
    """Raise a UserError when a file has no usable row: with how many were refused, and the first of them."""
    if usable:
        return
    reasons = "".join(f"\n  {reason}" for reason in refused[:3])
    raise UserError(f"data file {path}: no usable row, {len(refused)} refused{', such as' * bool(reasons)}{reasons}")


def first_object(path: Path) -> dict[str, Any]:
    """The object on a file's first line.

    Raises:
        UserError: the file does not open or is empty, or its first line is not a JSON object.
    """
    refused: list[str] = []
    for _, found in objects(path, refused):
        if not refused:
            return found
        break
    raise UserError(refused[:1] or f"data file {path}: it is empty; one JSON object a line is wanted")
