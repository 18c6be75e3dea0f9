r"""HH-RLHF: two transcripts of a dialogue, ``chosen`` and ``rejected``, ``\n\nHuman: ... \n\nAssistant: ...``.

They share a dialogue, and each ends with a reply. Some rows are not so clean, and two ways of reading differ on them:

- :func:`last_replies` takes the last turns, and refuses what differs before them, an empty turn, or two replies in a
  row: for training (of harmless-base's 2,312 test rows 2,303 are used);
- :func:`replies_from_the_fork` cuts both where they part, and the replies are the rest, whatever it holds: for
  measuring, which may not choose its rows.

A row that cannot be read so raises BadRow.

Source: arXiv:2204.05862; github.com/anthropics/hh-rlhf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from selfreward.formats import cells
from selfreward.formats.cells import BadRow, Conversation, text
from selfreward.formats.json_rows import Row

Turn = tuple[str, str]
"""(``Human`` or ``Assistant``, what is said)."""

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_REPLY = "\n\nAssistant:"


def asked(transcript: str) -> Conversation:
    """A text as a prompt: the conversation it tells of where it has turns below its beginning, else one message."""
    if not re.search(r"\n\n(Human|Assistant):", transcript):
        return cells.asked(transcript)
    opens = "" if transcript.startswith("\n\nHuman:") else "\n\nHuman: "
    return conversation(opens + transcript.removesuffix(_REPLY))


def replies_from_the_fork(chosen: str, rejected: str) -> tuple[Conversation, str, str]:
    """The prompt, up to the last ``Assistant:`` before the transcripts part, and the two replies from there on."""
    differ = (at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    shared = chosen[: next(differ, min(len(chosen), len(rejected)))].rfind(_REPLY)
    if shared < 0:
        raise BadRow("'chosen' and 'rejected' share no beginning with a turn of the assistant")
    start = shared + len(_REPLY)
    return conversation(chosen[:shared]), chosen[start:].strip(), rejected[start:].strip()


def last_replies(row: Row) -> tuple[Conversation, str, str]:
    """The dialogue that both columns share, and their last turns: the chosen reply, and the rejected one."""
    chosen, rejected = (_whole(row, column) for column in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("'chosen' and 'rejected' differ before the last reply")
    best, worst = chosen[-1][1], rejected[-1][1]
    if best == worst:
        raise BadRow("'chosen' and 'rejected' are the same")
    return _merged(chosen[:-1]), best, worst


def conversation(transcript: str) -> Conversation:
    """The turns of a transcript that ends with the human's; neighbouring turns of one speaker are one message."""
    before, turns = _split(transcript)
    if before.strip() or not turns:
        raise BadRow("a transcript starts with 'Human:', and has an empty line before each turn")
    if turns[-1][0] != "Human":
        raise BadRow("the human's turn must be the last before the reply")
    return _merged(turns)


def _whole(row: Row, column: str) -> list[Turn]:
    """The turns of a transcript that has nothing odd in it."""
    before, turns = _split(text(row.get(column), column))
    if before.strip() or len(turns) < 2 or (turns[0][0], turns[-1][0]) != ("Human", "Assistant"):
        raise BadRow(f"'{column}' must go from 'Human: ...' to 'Assistant: ...', with an empty line before each")
    if turns[-2][0] != "Human":
        raise BadRow(f"'{column}' ends with two replies in a row")
    for speaker, said in turns:
        if not said:
            raise BadRow(f"a turn of the {speaker} is empty in '{column}'")
    return turns


def _split(transcript: str) -> tuple[str, list[Turn]]:
    """What stands before the first turn, and the turns, without white space at their ends."""
    before, *parts = _SPEAKER.split(transcript)
    return before, list(zip(parts[::2], (said.strip() for said in parts[1::2]), strict=True))


def _merged(found: Iterable[Turn]) -> Conversation:
    """The turns as messages; neighbouring ones of one speaker are one message."""
    messages: Conversation = []
    for speaker, said in found:
        if messages and messages[-1]["role"] == _ROLES[speaker]:
            messages[-1]["content"] += f"\n\n{said}"
        else:
            messages.append({"role": _ROLES[speaker], "content": said})
    return messages
