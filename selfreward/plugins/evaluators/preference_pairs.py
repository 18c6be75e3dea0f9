"""Files of preferences: two replies to one prompt, of which people preferred one.

A row tells by its columns what it is:

- ``prompt`` or ``instruction`` (and ``input``), ``chosen``, ``rejected``: texts, or messages as TRL writes them; a
  prompt that is a transcript (``...\\n\\nAssistant: ...\\n\\nHuman: ...``) becomes the conversation it tells of;
- ``chosen``, ``rejected`` alone: transcripts of HH-RLHF, cut where they part (:mod:`selfreward.formats.hh_rlhf`);
- ``instruction``, ``input``, ``response1``, ``response2``, ``annotator1..3``: PandaLM's test set
  (:mod:`selfreward.formats.pandalm`). Two of three annotators decide; where they call it a tie, or all differ, there
  is no preference;
- ``message_id``, ``parent_id``, ``role``, ``text``, ``rank``, or trees of these: OpenAssistant's export
  (:mod:`selfreward.formats.oasst`). Every two ranked replies to a first turn are a pair, the better one chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward import Message, UserError
from selfreward.formats import cells, files, hh_rlhf, oasst, pandalm
from selfreward.formats.cells import BadRow, text


@dataclass(frozen=True)
class Pair:
    """Two replies to one conversation."""

    messages: list[Message]
    chosen: str
    rejected: str
    category: str = ""


@dataclass(frozen=True)
class PairFile:
    """What a file of preferences holds."""

    pairs: list[Pair]
    left_out: list[str]
    """``place: why`` of the rows that cannot be used."""
    undecided: int
    """Rows on which people had no preference."""


def read_pairs(path: Path, booleans_as_text: bool = False) -> PairFile:
    """The pairs of a file, in its order; those of an OpenAssistant export last.

    Args:
        path: JSON Lines, one JSON list, CSV or Parquet, those of text plain or gzipped.
        booleans_as_text: take a response that is JSON's ``true`` for the text ``True``; otherwise its row is refused.

    Raises:
        UserError: the file does not open, or gives no pair.
    """
    found, left_out = files.read(path, lambda row: _parsed(row, booleans_as_text))
    pairs = [row for row in found if isinstance(row, Pair)]
    turns = [turn for row in found if isinstance(row, list) for turn in row if not turn.deleted]
    for first, replies in oasst.ranked_replies(turns):
        pairs += ranked_pairs(cells.asked(first.text), [(r.rank, r.text) for r in replies if r.rank is not None])
    if not pairs:
        raise UserError(f"{path}: {len(found)} rows, and no two replies of which people preferred one")
    return PairFile(pairs, left_out, sum(row is None for row in found))


def ranked_pairs(messages: list[Message], answers: Iterable[tuple[int, str]]) -> Iterator[Pair]:
    """Every two answers with different ranks, the lower rank chosen."""
    known = list(answers)
    for rank, better in known:
        yield from (Pair(messages, better, worse) for other, worse in known if rank < other)


def _parsed(row: dict[str, Any], booleans_as_text: bool) -> Pair | list[oasst.Turn] | None:
    """What a row is; None where people had no preference."""
    if oasst.is_export(row):
        turns = oasst.turns(row)
        if not all(turn.text.strip() for turn in turns):
            raise BadRow("'text' is empty")
        return turns
    if "annotator1" in row:
        return _by_label(row, booleans_as_text)
    if "chosen" not in row or "rejected" not in row:
        raise BadRow(f"a row of preferences has 'chosen' and 'rejected'; there are: {', '.join(row) or 'none'}")
    chosen, rejected = (_reply(row[column], column) for column in ("chosen", "rejected"))
    if "prompt" not in row and "instruction" not in row:
        return Pair(*hh_rlhf.replies_from_the_fork(chosen, rejected))
    category = row.get("category", row.get("source"))
    return Pair(_prompt(row), chosen, rejected, category if isinstance(category, str) else "")


def _by_label(row: dict[str, Any], booleans_as_text: bool) -> Pair | None:
    label = pandalm.label(row)
    if not label:
        return None
    found = pandalm.comparison(row, booleans_as_text)
    replies = (found.first, found.second) if label == 1 else (found.second, found.first)
    return Pair(cells.asked(found.prompt), *replies)


def _reply(value: Any, column: str) -> str:
    """A reply: a text, also an empty one, or a list of one assistant's message."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content") if value[0].get("role") == "assistant" else None
    return text(value, column, may_be_empty=True)


def _prompt(row: dict[str, Any]) -> list[Message]:
    """``prompt`` (a text, or messages that end with the user's), or ``instruction`` and ``input``."""
    if isinstance(row.get("prompt"), list):
        return cells.prompt(row["prompt"], "prompt")
    columns = ("prompt",) if "prompt" in row else ("instruction", "input")
    given = [text(row[column], column, may_be_empty=True) for column in columns if row.get(column)]
    asked = "\n\n".join(part for part in given if part.strip())
    if not asked:
        raise BadRow(f"no text in {' and '.join(map(repr, columns))}")
    return hh_rlhf.asked(asked)
