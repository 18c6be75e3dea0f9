"""Files of published judge prompts: the eight of MT-Bench as they are, and what is told of files that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.errors import UserError
from selfreward.core.text.rubric import Rubric

PUBLISHED = {
    "pair-v2": (True, 0, False),
    "pair-v2-multi-turn": (True, 2, False),
    "pair-math-v1": (True, 0, True),
    "pair-math-v1-multi-turn": (True, 2, True),
    "single-v1": (False, 0, False),
    "single-math-v1": (False, 0, True),
    "single-v1-multi-turn": (False, 2, False),
    "single-math-v1-multi-turn": (False, 2, True),
}
"""Name: whether it compares, its turns, whether it shows a reference."""
GOOD = {
    "name": "short",
    "type": "single",
    "system_prompt": "Be fair.",
    "prompt_template": "{question}|{answer}",
    "output_format": "[[rating]]",
}


def dialogue(side: str) -> list[dict[str, str]]:
    texts = ["Q1 {answer}", f"first {side}", "Q2 \\1 {question_1}", f"second {side} {{ref_answer_1}}"]
    return [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]


def file_of(folder: Path, *rows: Any) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        Rubric.load(name)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ the published prompts


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_prompt_asks_what_its_own_format_call_would(shared_data: Path, name: str) -> None:
    path = shared_data / "fastchat" / "judge_prompts.jsonl"
    row = next(row for row in map(json.loads, path.read_text("utf-8").splitlines()) if row["name"] == name)
    rubric = Rubric.load(f"{path}:{name}")
    assert (rubric.compares, rubric.turns, rubric.needs_reference) == PUBLISHED[name]
    a, b = (dialogue(side) if rubric.turns else dialogue(side)[:2] for side in ("A", "B"))
    system, user = rubric.messages(a, b if rubric.compares else (), ["R1", "R2"][: max(rubric.turns, 1)])
    values = {"question": a[0], "answer": a[1], "answer_a": a[1], "answer_b": b[1]}
    for turn in range(len(a) // 2):
        asked, said, other = a[2 * turn], a[2 * turn + 1], b[2 * turn + 1]
        values |= {f"question_{turn + 1}": asked, f"answer_{turn + 1}": said}
        values |= {f"answer_a_{turn + 1}": said, f"answer_b_{turn + 1}": other}
    texts = {name: message["content"] for name, message in values.items()} | {
        "ref_answer_1": "R1",
        "ref_answer_2": "R2",
    }
    assert user == {"role": "user", "content": row["prompt_template"].format(**texts)}
    assert system == {"role": "system", "content": row["system_prompt"].strip()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_prompts_verdict_is_read_in_its_own_range(shared_data: Path, name: str) -> None:
    rubric = Rubric.load(f"{shared_data / 'fastchat' / 'judge_prompts.jsonl'}#{name}")
    if rubric.compares:
        assert [rubric.read(f"Both are fine. [[{x}]]") for x in "ABCD"] == [1, 0, 0.5, None]
    else:
        assert [rubric.read(f"Rating: [[{x}]]") for x in (0, 1, 7.5, 10, 11)] == [None, 1, 7.5, 10, None]
    assert name in Rubric.load(f"{shared_data / 'fastchat' / 'judge_prompts.jsonl'}:{name}").name


def test_every_prompt_of_the_published_file_is_known_here(shared_data: Path) -> None:
    lines = (shared_data / "fastchat" / "judge_prompts.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["name"] for line in lines} == set(PUBLISHED)


# ----------------------------------------------------------------------------------------------------------- the reader


def test_a_prompt_of_ones_own_stands_in_the_same_layout(tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD | {"name": "other"}, "", GOOD, GOOD | {"prompt_template": "{question}{answer} again"})
    rubric = Rubric.load(f"{path}:short")
    assert (rubric.name, rubric.system, rubric.low, rubric.high) == ("short", "Be fair.", 1, 10)
    assert rubric.template == "{instruction}|{response}", "the first one of a name counts"
    assert Rubric.load(f"{path}#short") == rubric
    assert Rubric.file(f"{path}:short") == path


def test_a_name_that_is_not_there_is_told_what_there_is(tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD, GOOD | {"name": "other"})
    assert refusal(f"{path}:shirt").endswith("no prompt of this name; did you mean short?")
    assert refusal(f"{path}:x").endswith("no prompt of this name; there are short, other")
    assert "which of its prompts? judge.rubric=FILE.jsonl:NAME; there are short, other" in refusal(str(path))
    assert "no such file" in refusal(f"{path.with_name('missing.jsonl')}:short")
    assert "there are none" in refusal(f"{file_of(tmp_path)}:short")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            GOOD | {"output_format": "[[A]]"},
            ":1: type and output_format must be single with [[rating]] or",
        ),
        (GOOD | {"output_format": "[[rating_a,rating_b]]"}, "got single with [[rating_a,rating_b]]"),
        (GOOD | {"type": "triple"}, "got triple with [[rating]]"),
        (GOOD | {"type": 3}, "see 'type'"),
        ({"name": "short"}, "prompts.jsonl:1: a judge prompt has the texts name, type"),
        (GOOD | {"prompt_template": "{question} {answer} {user}"}, ":short: template holds {user}, which is not one"),
        (GOOD | {"prompt_template": "{question}"}, "template must hold {response}"),
        (GOOD | {"prompt_template": "{question_1} {answer}"}, "template must hold {response_1}"),
        ("{", "prompts.jsonl:1: not usable as JSON"),
        ("[1]\n{}", "prompts.jsonl:1: a JSON object is wanted, got list"),
        ("[" * 100_000, "prompts.jsonl:1: not usable as JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, row: Any, says: str) -> None:
    assert says in refusal(f"{file_of(tmp_path, row)}:short")


def test_a_file_that_is_no_text_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    assert "prompts.jsonl:1: not usable as JSON: 'utf-8' codec" in refusal(f"{path}:short")


@settings(deadline=None)
@given(
    st.lists(st.text() | st.sampled_from(["{question}", "{answer}", "{ref_answer_1}", "{", "}", "{x}", "{{", "%s"])),
    st.text(),
    st.text(),
)
def test_any_template_is_filled_in_once_or_refused(tmp_path_factory: Any, pieces: list[str], q: str, a: str) -> None:
    template = "".join(["{question}", *pieces, "{answer}"])
    path = file_of(tmp_path_factory.mktemp("prompts"), GOOD | {"prompt_template": template})
    try:
        rubric = Rubric.load(f"{path}:short")
    except UserError:
        return
    texts = {"question": q, "answer": a, "ref_answer_1": "r"}
    wanted = re.sub(r"\{(\w+)\}", lambda found: texts[found[1]], template)
    shown = [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    assert rubric.messages(shown, references=["r"])[1]["content"] == wanted
