r"""HH-RLHF: pairs of dialogues, ``\n\nHuman: ... \n\nAssistant: ...``, the same up to the last reply.

The shared part is the prompt; the last replies are ranked, ``chosen`` before ``rejected``. Turns of one speaker in a
row are one message. A row is refused whose dialogues differ before the last reply, or where a turn is empty.
Source: arXiv:2204.05862; github.com/anthropics/hh-rlhf.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward import Message
from selfreward.plugins.data.cells import BadRow, text
from selfreward.plugins.data.human_answers import Exchange, HumanDataConfig, RowByRow

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass
class HhRlhfConfig(HumanDataConfig):
    """Where the pairs are, and which part of them is for what."""

    WANTED: ClassVar[str] = "a file of chosen and rejected dialogues, data.path=train.jsonl.gz"


class HhRlhf(RowByRow):
    """Dialogues with two ranked replies."""

    columns = ("chosen", "rejected")
    config: HhRlhfConfig

    def exchange(self, row: dict[str, Any]) -> Iterator[Exchange]:
        """The shared dialogue, and the two last replies."""
        chosen, rejected = (turns(text(row.get(column), column), column) for column in self.columns)
        if chosen[:-1] != rejected[:-1]:
            raise BadRow("'chosen' and 'rejected' differ before the last reply")
        best, worst = chosen[-1][1], rejected[-1][1]
        if best == worst:
            raise BadRow("'chosen' and 'rejected' are the same")
        yield Exchange(_messages(chosen[:-1]), [(0, best), (1, worst)], compared=True)


def turns(dialogue: str, column: str) -> list[tuple[str, str]]:
    """(speaker, text) of every turn.

    Raises:
        BadRow: it does not go from the human to the assistant, or a turn is empty.
    """
    before, *parts = _SPEAKER.split(dialogue)
    found = list(zip(parts[::2], (said.strip() for said in parts[1::2]), strict=True))
    if before.strip() or len(found) < 2 or (found[0][0], found[-1][0]) != ("Human", "Assistant"):
        raise BadRow(f"'{column}' must go from 'Human: ...' to 'Assistant: ...', with an empty line before each")
    if found[-2][0] != "Human":
        raise BadRow(f"'{column}' ends with two replies in a row")
    for speaker, said in found:
        if not said:
            raise BadRow(f"a turn of the {speaker} is empty in '{column}'")
    return found


def _messages(dialogue: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for speaker, said in dialogue:
        if messages and messages[-1]["role"] == _ROLES[speaker]:
            messages[-1]["content"] += f"\n\n{said}"
        else:
            messages.append({"role": _ROLES[speaker], "content": said})
    return messages
