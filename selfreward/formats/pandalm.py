"""PandaLM's test set: pairs of models' responses, three people's labels each (1 or 2 is better, 0 = they tie).

An empty response stays: a model said nothing, and people judged that. Six of its 999 rows have a response that is a
JSON boolean. What cannot be used raises BadRow. Source: arXiv:2306.05087 §4.1.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from selfreward.formats.cells import BadRow, below, cell, text
from selfreward.formats.json_rows import Row

ANNOTATORS = ("annotator1", "annotator2", "annotator3")
COLUMNS = ("instruction", "input", "response1", "response2", *ANNOTATORS)


class Comparison(NamedTuple):
    """The texts of a row."""

    instruction: str
    given: str
    """What the instruction is about; may be empty."""
    first: str
    second: str

    @property
    def prompt(self) -> str:
        """What the models were asked."""
        return below(self.instruction, self.given)


def comparison(row: Row, booleans_as_text: bool = False) -> Comparison:
    """The texts of a row.

    Args:
        row: with the :data:`COLUMNS`.
        booleans_as_text: take JSON's ``true`` for the text ``True``; otherwise it is no text."""
    found = Comparison(*(_text(row.get(column), column, booleans_as_text) for column in COLUMNS[:4]))
    if not found.prompt:
        raise BadRow("'instruction' and 'input' are empty")
    return found


def label(row: Row, agree: int = 2) -> int | None:
    """What at least so many of the three said: 1 or 2, or 0 for a tie; None where fewer agree."""
    most, voters = Counter(_label(cell(row, column), column) for column in ANNOTATORS).most_common(1)[0]
    return most if voters >= agree else None


def _text(value: Any, column: str, booleans_as_text: bool) -> str:
    as_text = booleans_as_text and isinstance(value, bool)
    return text(str(value) if as_text else value, column, may_be_empty=True)


def _label(value: Any, column: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in (0, 1, 2):
        raise BadRow(f"'{column}' must be 0, 1 or 2, got {'null' if value is None else repr(value)}")
    return value
