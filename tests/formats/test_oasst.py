"""Messages and trees read the same, replies find their first turn in any order, and what is neither is refused."""

from __future__ import annotations

from typing import Any

import pytest

from selfreward.formats.cells import BadRow
from selfreward.formats.oasst import is_export, ranked_replies, turns


def message(key: str, parent: str | None = None, rank: Any = None) -> dict[str, Any]:
    role = "assistant" if parent else "prompter"
    return {"message_id": key, "parent_id": parent, "role": role, "text": f"{key}?", "rank": rank}


def test_a_tree_is_its_messages() -> None:
    rows = [message("p"), message("a", "p", 0), message("b", "p", True), message("c", "p", 1)]
    below = [{k: v for k, v in row.items() if k != "parent_id"} for row in rows[1:]]
    found = turns({"prompt": rows[0] | {"replies": below}})
    assert found == [turn for row in rows for turn in turns(row)]
    [(first, replies)] = ranked_replies(reversed(found))
    assert (first.identity, [(reply.identity, reply.rank) for reply in replies]) == ("p", [("c", 1), ("a", 0)])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": {"replies": []}}, "'message_id' is missing"),
        ({"prompt": message("p") | {"replies": 3}}, "'replies' must be a list of messages"),
        ({"prompt": message("p") | {"replies": [message("a"), "b"]}}, "'replies' must be a list of messages"),
        (message("p") | {"parent_id": 7}, "'parent_id' must be text or null, got int"),
        (message("p") | {"text": None}, "'text' must be text, got null"),
    ],
)
def test_what_is_no_message_is_refused(row: dict[str, Any], why: str) -> None:
    assert is_export(row)
    with pytest.raises(BadRow, match=why):
        turns(row)
