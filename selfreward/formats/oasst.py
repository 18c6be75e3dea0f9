"""OpenAssistant's export: messages of conversation trees, whose replies people ranked (``rank``, 0 = best).

One message a row, as it is published (``oasst1_en-validation.jsonl.gz``, or the hub's tables), or one nested tree a
row; what is neither raises BadRow. A first turn is a message without parent. Source: arXiv:2304.07327.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from selfreward.formats.cells import BadRow, text_of
from selfreward.formats.json_rows import Row


@dataclass(frozen=True)
class Turn:
    """A message of a tree."""

    identity: str
    parent: str | None
    """The message it answers; None for a first turn."""
    role: str
    """``prompter`` or ``assistant``."""
    text: str
    rank: int | None
    """Among the replies to one message, 0 = best; None where nobody ranked it."""
    lang: Any
    deleted: bool

    @property
    def is_first(self) -> bool:
        """Whether it is a prompt that began a conversation."""
        return self.parent is None and self.role == "prompter"

    @property
    def is_ranked_reply(self) -> bool:
        """Whether it is an answer that people ranked among others."""
        return self.parent is not None and self.role == "assistant" and self.rank is not None


def is_export(row: Row) -> bool:
    """Whether the row is a message, or a tree of them, by its columns."""
    return "message_id" in row or isinstance(row.get("prompt"), dict)


def turns(row: Row) -> list[Turn]:
    """The message of a row, or the first turn of a tree and the replies to it."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        return [_turn(row, row.get("parent_id"))]
    replies = root.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRow("'replies' must be a list of messages")
    first = _turn(root, None)
    return [first, *(_turn(reply, first.identity) for reply in replies)]


def _turn(message: Row, parent: Any) -> Turn:
    if not isinstance(parent, str | None):
        raise BadRow(f"'parent_id' must be text or null, got {type(parent).__name__}")
    rank = message.get("rank")
    return Turn(
        text_of(message, "message_id"), parent, text_of(message, "role"), text_of(message, "text", may_be_empty=True),
        rank if type(rank) is int else None, message.get("lang"), bool(message.get("deleted")),
    )  # fmt: skip


def ranked_replies(found: Iterable[Turn]) -> list[tuple[Turn, list[Turn]]]:
    """Every first turn with the ranked replies to it, in the given order; a reply may stand before its parent."""
    known = list(found)
    replies: dict[str | None, list[Turn]] = {}
    for turn in known:
        if turn.is_ranked_reply:
            replies.setdefault(turn.parent, []).append(turn)
    return [(turn, replies.get(turn.identity, [])) for turn in known if turn.is_first]
