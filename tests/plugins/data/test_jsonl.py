"""Any prompt/response file: columns, ranks, refused rows, and a hold-out that no seed moves."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import UserError
from selfreward.core.options import cross_problems, option_docs, range_problems
from selfreward.plugins.data.jsonl import Jsonl, JsonlConfig


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def data(tmp_path: Path, rows: list[Any], **options: Any) -> Jsonl:
    return Jsonl(JsonlConfig(path=written(tmp_path / "rows.jsonl", rows), **options))


def test_rows_become_prompts_with_one_human_answer(tmp_path: Path) -> None:
    found = data(tmp_path, [{"prompt": "a?", "response": "A."}, {"prompt": "b?", "response": "B."}], evaluation=0)
    groups = found.split("ift", 0)
    assert [(g.prompt.text, g.prompt.source, [c.text for c in g.candidates]) for g in groups] == [
        ("a?", "ift", ["A."]),
        ("b?", "ift", ["B."]),
    ]
    answer = groups[0].candidates[0]
    assert (answer.origin, answer.model, answer.finish_reason, answer.rank) == ("human", "human", "human", 0)
    assert found.split("eft", 0) == found.split("evaluation", 0) == found.split("other", 0) == []
    assert found.refused == []
    assert found.problems() == []
    assert not found.has_truth


def test_ranks_group_by_prompt_and_start_at_zero(tmp_path: Path) -> None:
    rows = [
        {"q": "x", "a": text, "place": place}
        for text, place in [("worst", 9), ("best", 1), ("good", 2.5), ("also good", 2.5)]
    ]
    options = {"prompt_column": "q", "response_column": "a", "rank_column": "place", "evaluation": 0}
    [group] = data(tmp_path, rows, **options).split("ift", 0)
    assert [(c.text, c.rank) for c in group.candidates] == [("best", 0), ("good", 1), ("also good", 1), ("worst", 2)]


def test_a_list_is_ranked_best_first_and_messages_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    found = data(tmp_path, [{"prompt": turns, "response": ["one", "two", "two"]}], evaluation=1)
    [group] = found.split("judge_evaluation", 0)
    assert group.prompt.messages == turns
    assert group.prompt.source == "judge_evaluation"
    assert [(c.text, c.rank) for c in group.candidates] == [("one", 0), ("two", 1), ("two", 2)]
    assert len({c.candidate_id for c in group.candidates}) == 3
    assert found.split("ift", 0) == []


def test_unranked_answers_are_no_judge_evaluation(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "response": "a"}, {"prompt": "x", "response": "b"}]
    found = data(tmp_path, rows, evaluation=1)
    assert [len(g.candidates) for g in found.split("evaluation", 0)] == [2]
    assert found.split("judge_evaluation", 0) == []


def test_the_hold_out_is_stable(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {k}", "response": ["good", "bad"]} for k in range(2000)]
    found = data(tmp_path, rows, evaluation=0.1)
    held_out = {g.prompt.prompt_id for g in found.split("evaluation", 0)}
    seeded = {g.prompt.prompt_id for g in found.split("ift", 0)}
    assert 150 < len(held_out) < 250
    assert not held_out & seeded
    assert len(held_out | seeded) == 2000
    assert found.split("evaluation", 1) == found.split("evaluation", 0)
    fewer = data(tmp_path, rows[:1000][::-1], evaluation=0.1)  # other rows and another order move nothing
    assert {g.prompt.prompt_id for g in fewer.split("evaluation", 7)} <= held_out
    assert len(data(tmp_path, rows, evaluation=37).split("judge_evaluation", 0)) == 37
    assert len(data(tmp_path, rows[:5], evaluation=37).split("evaluation", 0)) == 5


def test_verdicts_come_from_their_own_file(tmp_path: Path) -> None:
    eft = written(tmp_path / "eft.jsonl", [{"prompt": "judge this", "response": "Fine. Score: 4"}])
    found = data(
        tmp_path, [{"prompt": "x", "response": "y", "rank": 0}], eft_path=eft, rank_column="rank", evaluation=0
    )
    [group] = found.split("eft", 0)
    assert (group.prompt.text, group.prompt.source, group.candidates[0].text) == ("judge this", "eft", "Fine. Score: 4")
    assert found.problems() == []
    assert [p.name for p in found.files()] == ["rows.jsonl", "eft.jsonl"]


BAD = [
    ({"response": "r"}, "no column 'prompt'"),
    ({"prompt": "p"}, "no column 'response'"),
    ({"prompt": None, "response": "r"}, "'prompt' must be text, got null"),
    ({"prompt": "p", "response": None}, "'response' must be text, got null"),
    ({"prompt": "p", "response": True}, "'response' must be text, got bool"),
    ({"prompt": "p", "response": " \n"}, "'response' is empty"),
    ({"prompt": "p", "response": []}, "'response' must be text, got list"),
    ({"prompt": "p", "response": ["r", False]}, "'response' must be text, got bool"),
    ({"prompt": [], "response": "r"}, "must end with a message of the user"),
    ({"prompt": [{"role": "assistant", "content": "c"}], "response": "r"}, "must end with a message of the user"),
    ({"prompt": [{"role": "user"}], "response": "r"}, "'prompt' must be text, got null"),
    ({"prompt": ["p"], "response": "r"}, "list of messages"),
    ({"prompt": "kept", "response": ["again"]}, "the prompt occurs before"),
    ({"prompt": "p", "response": "\ud800"}, "not usable as JSON"),
    (["p", "r"], "a JSON object is wanted, got list"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_bad_rows_are_left_out_by_line(tmp_path: Path, row: Any, why: str) -> None:
    found = data(tmp_path, [{"prompt": "kept", "response": "yes"}, row], evaluation=0)
    assert [g.prompt.text for g in found.split("ift", 0)] == ["kept"]
    [refused] = found.refused
    assert refused.startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert why in refused


@pytest.mark.parametrize("rank", [None, True, "1", float("nan"), float("inf")])
def test_bad_ranks_are_refused(tmp_path: Path, rank: Any) -> None:
    rows = [{"prompt": "p", "response": "r", "rank": 1}, {"prompt": "p", "response": "s", "rank": rank}]
    found = data(tmp_path, rows, rank_column="rank", evaluation=0)
    assert [len(g.candidates) for g in found.split("ift", 0)] == [1]
    assert "'rank' must be a number" in found.refused[0]


def test_only_bad_rows_are_an_error_with_the_first_few(tmp_path: Path) -> None:
    found = data(tmp_path, [{"prompt": "p", "response": None}] * 7)
    with pytest.raises(UserError, match="no usable row, 7 refused") as error:
        found.split("ift", 0)
    assert str(error.value).count("must be text") == 3
    assert "rows.jsonl:1" in str(error.value)


def test_gzip_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"prompt": "p", "response": "r"}\r\n\r\nnonsense\n\xff\n'))
    found = Jsonl(JsonlConfig(path=str(path), evaluation=0))
    assert [g.prompt.text for g in found.split("ift", 0)] == ["p"]
    assert [reason.split(": ")[0] for reason in found.refused] == [f"{path}:3", f"{path}:4"]


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b'{"prompt": "p"}\n' * 500)[:-20]])
def test_what_is_not_gzip_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz: not readable"):
        Jsonl(JsonlConfig(path=str(path))).split("ift", 0)


def test_problems_before_any_work(tmp_path: Path) -> None:
    assert "no such file" in Jsonl(JsonlConfig(path=str(tmp_path / "none.jsonl"))).problems()[0]
    [problem] = data(tmp_path, [{"Prompts": "p", "response": "r"}]).problems()
    assert "rows.jsonl: no column 'prompt'; did you mean 'Prompts'?" in problem
    [problem] = data(tmp_path, [{"prompt": "p", "answer": "r"}]).problems()
    assert "no column 'response'; there are: prompt, answer" in problem
    [problem] = data(tmp_path, [{"prompt": "p", "response": "r", "ranks": 1}], rank_column="rank").problems()
    assert "did you mean 'ranks'?" in problem
    (tmp_path / "rows.jsonl").write_text("nonsense\n")
    assert "rows.jsonl:1: not usable as JSON" in Jsonl(JsonlConfig(path=str(tmp_path / "rows.jsonl"))).problems()[0]
    (tmp_path / "rows.jsonl").write_text("")
    assert "it is empty" in Jsonl(JsonlConfig(path=str(tmp_path / "rows.jsonl"))).problems()[0]
    assert "not readable" in Jsonl(JsonlConfig(path=str(tmp_path))).problems()[0]


def test_the_options_rules() -> None:
    assert "data: path is not set" in next(cross_problems(JsonlConfig(), "data"))
    same = JsonlConfig(path="x", prompt_column="text", response_column="text")
    assert "must differ" in next(cross_problems(same, "data"))
    assert list(cross_problems(JsonlConfig(path="x"), "data")) == []
    assert list(range_problems(JsonlConfig(evaluation=-1), "data"))
    assert option_docs(JsonlConfig).keys() == JsonlConfig.__dataclass_fields__.keys()


TEXT = st.text(min_size=1).filter(str.strip)


@given(rows=st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5))
def test_any_text_goes_through_unchanged(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[str]]) -> None:
    path = tmp_path_factory.mktemp("jsonl")
    found = data(path, [{"prompt": p, "response": r} for p, r in rows.items()], evaluation=0.5)
    groups = [*found.split("ift", 0), *found.split("evaluation", 0)]
    assert {g.prompt.text: [c.text for c in g.candidates] for g in groups} == rows
    assert found.refused == []
