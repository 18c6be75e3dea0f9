"""Any table: the five forms by their columns, ranks, refused rows, and the options that name what is missing."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import AnsweredPrompt, UserError
from selfreward.core.contracts.options import cross_problems, option_docs, range_problems
from selfreward.plugins.data.table import Table, TableConfig


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def data(tmp_path: Path, rows: list[Any], **options: Any) -> Table:
    return Table(TableConfig(path=written(tmp_path / "rows.jsonl", rows), **options))


def ift(tmp_path: Path, rows: list[Any], **options: Any) -> list[AnsweredPrompt]:
    """All rows in one split."""
    found = data(tmp_path, rows, evaluation=0, ranked=0, **options)
    assert found.problems() == []
    return list(found.split("ift", 0))


def ranks(group: AnsweredPrompt) -> list[tuple[str, int | None]]:
    return [(c.text, c.rank) for c in group.candidates]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --------------------------------------------------------------------------------------------------------------- forms


def test_instructions_become_prompts_with_one_human_answer(tmp_path: Path) -> None:
    found = data(tmp_path, [{"prompt": "a?", "response": "A."}, {"prompt": "b?", "response": "B."}], evaluation=0)
    groups = found.split("ift", 0)
    assert [(g.prompt.text, g.prompt.source, [c.text for c in g.candidates]) for g in groups] == [
        ("a?", "ift", ["A."]),
        ("b?", "ift", ["B."]),
    ]
    answer = groups[0].candidates[0]
    assert (answer.origin, answer.model, answer.finish_reason, answer.rank) == ("human", "human", "human", 0)
    for empty in ("eft", "ranked", "evaluation", "judge_evaluation", "other"):
        assert found.split(empty, 0) == []
    assert found.refused == []
    assert not found.left_out
    assert not found.has_truth


def test_ranks_group_by_prompt_and_start_at_zero(tmp_path: Path) -> None:
    rows = [
        {"q": "x", "a": text, "place": place}
        for text, place in [("worst", 9), ("best", 1), ("good", 2.5), ("also good", 2.5)]
    ]
    [group] = ift(tmp_path, rows, prompt_column="q", response_column="a", rank_column="place")
    assert ranks(group) == [("best", 0), ("good", 1), ("also good", 1), ("worst", 2)]


def test_a_list_is_ranked_best_first_and_messages_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, user("u")]
    found = data(tmp_path, [{"prompt": turns, "response": ["one", "two", "two"]}], evaluation=1)
    [group] = found.split("judge_evaluation", 0)
    assert group.prompt.messages == turns
    assert group.prompt.source == "judge_evaluation"
    assert ranks(group) == [("one", 0), ("two", 1), ("two", 2)]
    assert len({c.candidate_id for c in group.candidates}) == 3
    assert found.split("ift", 0) == []


def test_unranked_answers_are_no_judge_evaluation(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "response": "a"}, {"prompt": "x", "response": "b"}]
    found = data(tmp_path, rows, evaluation=1)
    assert [len(g.candidates) for g in found.split("evaluation", 0)] == [2]
    assert found.split("judge_evaluation", 0) == []


PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}
TRL_PAIR = {"prompt": [user("p")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}
IMPLICIT = {"chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]}


@pytest.mark.parametrize("row", [PAIR, TRL_PAIR, IMPLICIT, IMPLICIT | {"prompt": "p", "messages": "not read"}])
def test_preferences_in_the_forms_people_have(tmp_path: Path, row: dict[str, Any]) -> None:
    [group] = ift(tmp_path, [row])
    assert group.prompt.messages == [user("p")]
    assert ranks(group) == [("good", 0), ("bad", 1)]


def test_each_preference_is_a_comparison_of_its_own(tmp_path: Path) -> None:
    rows = [PAIR, PAIR | {"rejected": "worse"}, PAIR | {"chosen": "bad", "rejected": "good"}]
    judged = data(tmp_path, rows, evaluation=1)
    groups = judged.split("judge_evaluation", 0)
    assert [[c.text for c in g.candidates] for g in groups] == [["good", "bad"], ["good", "worse"], ["bad", "good"]]
    assert len({c.candidate_id for g in groups for c in g.candidates}) == 6
    assert len(judged.split("evaluation", 0)) == 1
    trained = data(tmp_path, rows, evaluation=0, ranked=1)
    assert [ranks(g) for g in trained.split("ranked", 0)] == [[("good", 0), ("bad", 1)]]
    assert trained.left_out == {"another comparison of a prompt": 2}


def test_conversations_end_with_the_response(tmp_path: Path) -> None:
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    [group] = ift(tmp_path, [{"messages": turns}, {"messages": turns[:1]}])
    assert group.prompt.messages == turns[:3]
    assert ranks(group) == [("d", 0)]


def test_a_response_may_be_a_message(tmp_path: Path) -> None:
    [group] = ift(tmp_path, [{"prompt": [user("p")], "completion": [assistant("r")]}], response_column="completion")
    assert ranks(group) == [("r", 0)]


def test_prompts_alone_are_asked_for(tmp_path: Path) -> None:
    rows = [{"prompt": "p"}, {"prompt": "q", "response": "not read"}, {"prompt": "p"}]
    groups = ift(tmp_path, rows, response_column=None)
    assert [(g.prompt.text, g.candidates) for g in groups] == [("p", []), ("q", [])]


def test_ranks_of_a_csv_are_text_that_reads_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [["prompt", "response", "rank"], ["p", "a,\nb", "2"], ["p", "c", "1.0"], ["p", "d", "first"]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = Table(TableConfig(path=str(path), rank_column="rank", evaluation=0, ranked=1))
    [group] = found.split("ranked", 0)
    assert ranks(group) == [("c", 0), ("a,\nb", 1)]
    assert found.refused == [f"{path}:5: 'rank' must be a number, got 'first'"]


def test_verdicts_come_from_their_own_file(tmp_path: Path) -> None:
    eft = written(tmp_path / "eft.jsonl", [{"prompt": "judge this", "response": "Fine. Score: 4"}])
    rows = [{"prompt": "x", "response": "y", "rank": 0}]
    found = data(tmp_path, rows, eft_path=eft, rank_column="rank", evaluation=0)
    assert found.problems() == []
    [group] = found.split("eft", 0)
    assert (group.prompt.text, group.prompt.source, group.candidates[0].text) == ("judge this", "eft", "Fine. Score: 4")
    assert [p.name for p in found.files()] == ["rows.jsonl", "eft.jsonl"]


# ------------------------------------------------------------------------------------------------------------ bad rows

BAD = [
    ({"response": "r"}, "no column 'prompt'"),
    ({"prompt": "p"}, "no column 'response'; there are: prompt"),
    ({"prompt": None, "response": "r"}, "'prompt' must be text, got null"),
    ({"prompt": "p", "response": None}, "'response' must be text, got null"),
    ({"prompt": "p", "response": True}, "'response' must be text, got bool"),
    ({"prompt": "p", "response": 4}, "'response' must be text, got int"),
    ({"prompt": "p", "response": " \n"}, "'response' is empty"),
    ({"prompt": "p", "response": []}, "'response' must end with a message of the assistant"),
    ({"prompt": "p", "response": ["r", False]}, "'response' must be text, got bool"),
    ({"prompt": "p", "response": [user("x"), assistant("y")]}, "one message of the assistant, got 2"),
    ({"prompt": [], "response": "r"}, "must end with a message of the user"),
    ({"prompt": [assistant("c")], "response": "r"}, "must end with a message of the user"),
    ({"prompt": [{"role": "user"}], "response": "r"}, "'prompt' must be text, got null"),
    ({"prompt": ["p"], "response": "r"}, "list of messages"),
    ({"prompt": "kept", "response": ["again"]}, "the prompt occurs before"),
    ({"prompt": "p", "response": "\ud800"}, "not usable as JSON: half a character"),
    (["p", "r"], "a JSON object is wanted, got list"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_bad_rows_are_left_out_by_line(tmp_path: Path, row: Any, why: str) -> None:
    found = data(tmp_path, [{"prompt": "kept", "response": "yes"}, row], evaluation=0)
    assert [g.prompt.text for g in found.split("ift", 0)] == ["kept"]
    [refused] = found.refused
    assert refused.startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert why in refused


BAD_PAIRS = [
    (PAIR | {"chosen": "bad"}, "'chosen' and 'rejected' are the same"),
    (PAIR | {"rejected": True}, "'rejected' must be text, got bool"),
    ({"chosen": "a", "rejected": "b"}, "no column 'prompt'"),
    (IMPLICIT | {"rejected": [user("q"), assistant("bad")]}, "differ before the last message"),
    (IMPLICIT | {"rejected": [user("p"), assistant("bad"), user("q")]}, "must end with a message of the assistant"),
]


@pytest.mark.parametrize(("row", "why"), BAD_PAIRS)
def test_bad_pairs_are_left_out_by_line(tmp_path: Path, row: Any, why: str) -> None:
    found = data(tmp_path, [PAIR, row], evaluation=0, ranked=0)
    assert len(found.split("ift", 0)) == 1
    assert found.refused[0].startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert why in found.refused[0]


@pytest.mark.parametrize("rank", [None, True, "1", float("nan"), float("inf")])
def test_bad_ranks_are_refused(tmp_path: Path, rank: Any) -> None:
    rows = [{"prompt": "p", "response": "r", "rank": 1}, {"prompt": "p", "response": "s", "rank": rank}]
    found = data(tmp_path, rows, rank_column="rank", evaluation=0)
    assert [len(g.candidates) for g in found.split("ift", 0)] == [1]
    assert "'rank' must be a number" in found.refused[0]


def test_a_response_that_is_ranked_twice_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": text, "rank": k} for k, text in enumerate(["r", "s", "r"])]
    found = data(tmp_path, rows, rank_column="rank", evaluation=0, ranked=1)
    assert [ranks(g) for g in found.split("ranked", 0)] == [[("r", 0), ("s", 1)]]
    assert "rows.jsonl:3: the same response to this prompt was ranked before" in found.refused[0]


def test_only_bad_rows_are_an_error_with_the_first_few(tmp_path: Path) -> None:
    found = data(tmp_path, [{"prompt": "p", "response": None}] * 7)
    with pytest.raises(UserError, match="no usable row, 7 refused") as error:
        found.split("ift", 0)
    assert str(error.value).count("must be text") == 3
    assert "rows.jsonl:1" in str(error.value)


# ------------------------------------------------------------------------------------------------------ before any work


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        ({"Prompts": "p", "response": "r"}, {}, "no column 'prompt'; did you mean 'Prompts'?; set data.prompt_column="),
        ({"prompt": "p", "answer": "r"}, {}, "no column 'response'; there are: prompt, answer; set data.response_col"),
        ({"prompt": "p", "response": "r", "ranks": 1}, {"rank_column": "rank"}, "did you mean 'ranks'?"),
        (
            {"instruction": "p", "chosen": "c", "rejected": "r"},
            {},
            "no column 'prompt'; there are: instruction, chosen",
        ),
        ({"prompt": "p", "chosen": "c", "reject": "r"}, {}, "no column 'rejected'; did you mean 'reject'?"),
    ],
)
def test_a_missing_column_is_told_with_those_there_and_the_option(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    [problem] = data(tmp_path, [row], **options).problems()
    assert problem.startswith(f"data file {tmp_path / 'rows.jsonl'}: no column")
    assert said in problem


def test_problems_of_files(tmp_path: Path) -> None:
    assert "no such file" in Table(TableConfig(path=str(tmp_path / "none.jsonl"))).problems()[0]
    path = tmp_path / "rows.jsonl"
    path.write_text("nonsense\n")
    assert "rows.jsonl:1: not usable as JSON" in Table(TableConfig(path=str(path))).problems()[0]
    path.write_text('nonsense\n{"prompt": "p", "response": "r"}\n')
    assert Table(TableConfig(path=str(path))).problems() == [], "one bad row does not end a run"
    path.write_text("")
    assert "it is empty" in Table(TableConfig(path=str(path))).problems()[0]
    assert "save_to_disk" in Table(TableConfig(path=str(tmp_path))).problems()[0]


def test_the_options_rules() -> None:
    assert "data: path is not set; give a file of prompts" in next(cross_problems(TableConfig(), "data"))
    same = TableConfig(path="x", prompt_column="text", response_column="text")
    assert "must differ" in next(cross_problems(same, "data"))
    assert "response_column" in next(cross_problems(TableConfig(path="x", eft_path="y", response_column=None), "data"))
    assert list(cross_problems(TableConfig(path="x", response_column=None), "data")) == []
    assert list(range_problems(TableConfig(evaluation=-1), "data"))
    assert list(option_docs(TableConfig)) == [field.name for field in fields(TableConfig)]


TEXT = st.text(min_size=1).filter(str.strip)


@given(rows=st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5))
def test_any_text_goes_through_unchanged(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[str]]) -> None:
    path = tmp_path_factory.mktemp("table")
    found = data(path, [{"prompt": p, "response": r} for p, r in rows.items()], evaluation=0.4, ranked=0, overlap=0)
    groups = [*found.split("ift", 0), *found.split("evaluation", 0)]
    assert {g.prompt.text: [c.text for c in g.candidates] for g in groups} == rows
    assert found.refused == []
