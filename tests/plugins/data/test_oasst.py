"""OpenAssistant: the real export where it is at hand, and a small one with everything that is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from selfreward import AnsweredPrompt, UserError
from selfreward.core.contracts.options import cross_problems, option_docs
from selfreward.formats.contamination import normalised
from selfreward.plugins.data.oasst import Oasst, OasstConfig

EXPORT = "oasst/oasst1_en-validation.jsonl.gz"


def pairs(groups: Sequence[AnsweredPrompt]) -> list[tuple[str, str]]:
    """(better, worse) of every pair of replies that people ranked."""
    found = [pair for group in groups for pair in combinations(group.candidates, 2)]
    return [(a.text, b.text) for a, b in found if a.rank != b.rank]


def test_the_facts_of_the_real_export(shared_data: Path) -> None:
    found = Oasst(OasstConfig(path=str(shared_data / EXPORT), evaluation=0, ranked=0))
    groups = found.split("ift", 0)
    assert all(len(group.candidates) >= 2 for group in groups)
    assert (len(groups), sum(len(group.candidates) for group in groups), len(pairs(groups))) == (186, 541, 531)
    assert found.refused == []
    assert found.left_out == {
        "deleted message": 40,
        "reply to a message that is not in the file": 3,
        "first turn without a ranked reply": 1,
        "without the best reply": 1,
    }
    assert len(groups) + 2 == 188  # roots


def test_the_longer_answer_wins_as_often_as_is_known(shared_data: Path) -> None:
    everything = Oasst(OasstConfig(path=str(shared_data / EXPORT), evaluation=0.999999))
    lengths = [(len(a), len(b)) for a, b in pairs(everything.split("judge_evaluation", 0))]
    won = sum(a > b for a, b in lengths) + sum(a == b for a, b in lengths) / 2
    assert round(100 * won / len(lengths), 1) == 68.8


def test_the_splits_of_the_real_export(shared_data: Path) -> None:
    found = Oasst(OasstConfig(path=str(shared_data / EXPORT), ranked=0.2))
    names = ("ift", "ranked", "evaluation", "judge_evaluation")
    ift, ranked, held_out, judged = (list(found.split(name, 0)) for name in names)
    sides = [{normalised(g.prompt.text) for g in side} for side in (ift, ranked, held_out)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert len(ift) + len(ranked) + len(judged) == 186
    assert 35 < len(judged) < 80
    assert 15 < len(ranked) < 40
    assert {g.prompt.prompt_id for g in judged} <= {g.prompt.prompt_id for g in held_out}
    for group in [*ift, *ranked]:
        ranks = [c.rank for c in group.candidates]
        assert ranks[0] == 0
        assert ranks == sorted(ranks)
        assert [m["role"] for m in group.prompt.messages] == ["user"]
    assert found.split("ift", 5) == ift
    assert found.split("eft", 0) == []
    assert found.problems() == []


def message(key: str, parent: str | None, text: str, **fields: Any) -> dict[str, Any]:
    role = "prompter" if parent is None else "assistant"
    return {
        "message_id": key,
        "parent_id": parent,
        "text": text,
        "role": role,
        "lang": "en",
        "deleted": False,
        "rank": None,
    } | fields


ROWS = [
    message("late", "p", "second", rank=1),  # a reply may stand before its parent
    message("p", None, "Hello?"),
    message("best", "p", "first", rank=0),
    message("deleted", "p", "gone", rank=2, deleted=True),
    message("foreign", "p", "bonjour", rank=3, lang="fr"),
    message("unranked", "p", "whatever"),
    message("blank", "p", " ", rank=4),
    message("follow-up", "best", "and then?", role="prompter"),
    message("deep", "follow-up", "then this", rank=0),
    message("orphan", "nobody", "lost", rank=0),
    message("french", None, "Bonjour ?", lang="fr"),
    message("reply", "french", "an English reply to it", rank=0),
    message("removed", None, "What?", deleted=True),
    message("left", "removed", "that", rank=0),
    message("no best", None, "Who?"),
    message("third", "no best", "them", rank=2),
]


def written(path: Path, rows: list[Any]) -> Oasst:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Oasst(OasstConfig(path=str(path), evaluation=0, ranked=0))


def test_what_is_left_out(tmp_path: Path) -> None:
    found = written(tmp_path / "rows.jsonl", ROWS)
    [group] = found.split("ift", 0)
    assert group.prompt.text == "Hello?"
    assert [(c.text, c.rank, c.origin) for c in group.candidates] == [("first", 0, "human"), ("second", 1, "human")]
    assert found.refused == []
    assert found.left_out == {
        "deleted message": 2,
        "message not in en": 2,
        "empty message": 1,
        "reply to a message that is not in the file": 1,
        "without the best reply": 1,
    }


def test_a_rank_that_repeats_is_refused_by_line(tmp_path: Path) -> None:
    again = [message("again", "p", "also first", rank=0), message("text", "p", "no rank", rank="1")]
    found = written(tmp_path / "rows.jsonl", ROWS + again)
    [group] = found.split("ift", 0)
    assert [c.text for c in group.candidates] == ["first", "second"]
    assert found.refused == [f"{tmp_path / 'rows.jsonl'}:17: another reply to the same message has rank 0, too"]


def test_a_held_out_prompt_whose_best_reply_is_gone_is_still_a_prompt(tmp_path: Path) -> None:
    found = written(tmp_path / "rows.jsonl", ROWS)
    found.config.evaluation = 0.999999
    assert [g.prompt.text for g in found.split("evaluation", 0)] == ["Hello?", "Who?"]
    assert [g.prompt.text for g in found.split("judge_evaluation", 0)] == ["Hello?"]


def test_nested_trees_read_the_same(tmp_path: Path) -> None:
    def bare(key: str) -> dict[str, Any]:
        [row] = [row for row in ROWS if row["message_id"] == key]
        return {k: v for k, v in row.items() if k != "parent_id"}

    best = bare("best") | {"replies": [bare("follow-up") | {"replies": [bare("deep")]}]}
    replies = [bare("late"), best, bare("deleted"), bare("foreign"), bare("unranked")]
    tree = {"message_tree_id": "p", "prompt": bare("p") | {"replies": replies}}
    nested = written(tmp_path / "trees.jsonl", [tree])
    assert nested.problems() == []
    assert nested.split("ift", 0) == written(tmp_path / "rows.jsonl", ROWS).split("ift", 0)


def test_two_trees_with_one_instruction_do_not_mix_their_ranks(tmp_path: Path) -> None:
    again = [message("q", None, "Hello?"), message("r", "q", "other", rank=0)]
    [group] = written(tmp_path / "rows.jsonl", ROWS + again).split("ift", 0)
    assert [c.text for c in group.candidates] == ["first", "second"]


def test_lines_that_are_no_messages_are_refused_by_line(tmp_path: Path) -> None:
    found = written(
        tmp_path / "rows.jsonl", [*ROWS, {"text": "?"}, {"prompt": {"replies": 3}}, [1], message("x", 7, "y", rank=0)]
    )  # type: ignore[arg-type]
    assert len(found.split("ift", 0)) == 1
    assert [int(reason.split(":")[1]) for reason in found.refused] == [17, 18, 19, 20]


def test_errors_name_the_file_and_the_mend(tmp_path: Path) -> None:
    assert "no such file" in Oasst(OasstConfig(path=str(tmp_path / "none"))).problems()[0]
    other = written(tmp_path / "other.jsonl", [{"prompt": "p", "response": "r"}])
    assert "other.jsonl: no OpenAssistant export" in other.problems()[0]
    assert "data=table" in other.problems()[0]
    with pytest.raises(UserError, match="no usable row, 1 refused"):
        other.split("ift", 0)
    with pytest.raises(UserError, match="not readable"):
        Oasst(OasstConfig(path=str(tmp_path / "none.jsonl"))).split("ift", 0)
    assert "path is not set" in next(cross_problems(OasstConfig(), "data"))
    assert sorted(option_docs(OasstConfig)) == sorted(field.name for field in fields(OasstConfig))
