"""Transcripts give back their turns, and both ways of reading agree where a row is clean."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from selfreward.formats.cells import BadRow
from selfreward.formats.hh_rlhf import asked, conversation, last_replies, replies_from_the_fork

# what a person may write in a turn: no speaker's mark of its own, no white space at its ends
said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(str.strip)
said = said.filter(lambda text: text and "\n\nHuman:" not in text and "\n\nAssistant:" not in text)


@given(turns=st.lists(said, min_size=1, max_size=5).filter(lambda t: len(t) % 2), chosen=said, rejected=said)
def test_a_transcript_gives_back_its_turns(turns: list[str], chosen: str, rejected: str) -> None:
    marks = itertools.cycle(["Human", "Assistant"])
    shared = "".join(f"\n\n{mark}: {turn}" for mark, turn in zip(marks, turns, strict=False))
    assert [turn["content"] for turn in conversation(shared)] == turns
    row = {"chosen": f"{shared}\n\nAssistant: {chosen}", "rejected": f"{shared}\n\nAssistant: {rejected}"}
    found = replies_from_the_fork(row["chosen"], row["rejected"])
    assert ([turn["content"] for turn in found[0]], *found[1:]) == (turns, chosen, rejected)
    assume(chosen != rejected)
    assert last_replies(row) == found


def test_a_reply_that_goes_on_is_measured_and_not_trained_on() -> None:
    start = "\n\nHuman: a\n\nAssistant:"
    row = {"chosen": f"{start} b\n\nHuman: c\n\nAssistant: d", "rejected": f"{start} e"}
    assert replies_from_the_fork(**row)[1:] == ("b\n\nHuman: c\n\nAssistant: d", "e")
    with pytest.raises(BadRow, match="differ before the last reply"):
        last_replies(row)


def test_a_prompt_may_be_a_transcript() -> None:
    assert asked("Human: x") == [{"role": "user", "content": "Human: x"}]
    assert [m["content"] for m in asked("a\n\nAssistant: b\n\nHuman: c\n\nAssistant:")] == ["a", "b", "c"]
    with pytest.raises(BadRow, match="the human's turn must be the last"):
        asked("a\n\nAssistant: b")
