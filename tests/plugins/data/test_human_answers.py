"""What is done with human answers: sides that share no conversation, shares, overlaps, and counts that add up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from selfreward.formats.contamination import normalised
from selfreward.plugins.data.table import Table, TableConfig

SPLITS = ("ift", "ranked", "evaluation", "judge_evaluation")


def table(path: Path, rows: list[dict[str, Any]], **options: Any) -> Table:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Table(TableConfig(path=str(path), **options))


def ids(data: Table, name: str, seed: int = 0) -> set[str]:
    return {group.prompt.prompt_id for group in data.split(name, seed)}


ROWS = [{"prompt": f"question {k}", "response": ["good", "bad"]} for k in range(2000)]


def test_the_shares(tmp_path: Path) -> None:
    found = table(tmp_path / "rows.jsonl", ROWS, evaluation=0.1, ranked=0.25)
    seeded, ranked, held_out, judged = (ids(found, name) for name in SPLITS)
    assert 150 < len(held_out) < 250
    assert 380 < len(ranked) < 520
    assert held_out == judged
    assert len(seeded | ranked | held_out) == len(seeded) + len(ranked) + len(held_out) == 2000
    numbers = table(tmp_path / "rows.jsonl", ROWS, evaluation=37, ranked=41)
    assert [len(ids(numbers, name)) for name in SPLITS] == [2000 - 37 - 41, 41, 37, 37]
    few = table(tmp_path / "rows.jsonl", ROWS[:5], evaluation=37)
    assert [len(ids(few, name)) for name in SPLITS] == [0, 0, 5, 5]
    none = table(tmp_path / "rows.jsonl", ROWS[:5], evaluation=0, ranked=0)
    assert [len(ids(none, name)) for name in SPLITS] == [5, 0, 0, 0]


def test_no_seed_and_no_other_row_moves_a_prompt(tmp_path: Path) -> None:
    found = table(tmp_path / "rows.jsonl", ROWS)
    fewer = table(tmp_path / "fewer.jsonl", ROWS[:1000][::-1])
    for name in SPLITS:
        assert found.split(name, 1) == found.split(name, 0)
        assert ids(fewer, name, seed=7) == {i for i in ids(found, name) if i in ids(fewer, name)}
    more_held_out = table(tmp_path / "rows.jsonl", ROWS, evaluation=0.2)
    assert ids(found, "evaluation") < ids(more_held_out, "evaluation")


def test_a_conversation_is_on_one_side_only(tmp_path: Path) -> None:
    def turns(k: int, first: str) -> list[dict[str, str]]:
        later = [{"role": "assistant", "content": "?"}, {"role": "user", "content": f"and {k}"}]
        return [{"role": "user", "content": first}, *later]

    rows = [
        {"prompt": turns(k, first), "response": ["good", "bad"] if k else "only"}
        for question in range(200)
        for k, first in enumerate([f"Question {question}?", f"question  {question}", f"“Question” {question}!"])
    ]
    found = table(tmp_path / "rows.jsonl", rows, evaluation=0.3, ranked=0.3)
    sides = {
        name: {normalised(g.prompt.messages[0]["content"]) for g in found.split(name, 0)}
        for name in ("ift", "ranked", "evaluation")
    }
    assert all(len(side) > 20 for side in sides.values())
    assert sum(map(len, sides.values())) == len(set().union(*sides.values())) == 200
    in_a_split = sum(len(found.split(name, 0)) for name in sides)
    assert found.left_out == {"without ranks, in a conversation of `ranked`": len(sides["ranked"])}
    assert in_a_split + found.left_out.total() == len(rows)


def test_a_tie_is_judged_and_makes_no_verdict(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": text, "rank": 1} for text in ("a", "b")]
    held_out = table(tmp_path / "rows.jsonl", rows, rank_column="rank", evaluation=1)
    assert [[c.rank for c in g.candidates] for g in held_out.split("judge_evaluation", 0)] == [[0, 0]]
    trained = table(tmp_path / "rows.jsonl", rows, rank_column="rank", evaluation=0, ranked=1)
    assert trained.split("ranked", 0) == []
    assert len(trained.split("ift", 0)) == 1


LONG = "Write a letter to the mayor of a small town in the north about {} and say why it matters to all"


def test_what_overlaps_a_held_out_prompt_is_not_trained_on(tmp_path: Path) -> None:
    apart = table(
        tmp_path / "test.jsonl",
        [{"prompt": "Say: hello!", "response": "x"}, {"prompt": LONG.format("a"), "response": "x"}],
    )
    prompts = ["say hello", LONG.format("b"), "Something else", "Write a letter to the mayor of a small town"]
    rows = [{"prompt": prompt, "response": "y"} for prompt in prompts]

    def kept(**options: Any) -> tuple[list[str], dict[str, int]]:
        found = table(tmp_path / "rows.jsonl", rows, evaluation_path=apart.config.path, **options)
        assert len(found.split("evaluation", 0)) == 2
        assert [p.name for p in found.files()] == ["rows.jsonl", "test.jsonl"]
        return [g.prompt.text for g in found.split("ift", 0)], dict(found.left_out)

    same = {"a conversation of evaluation_path": 1}
    assert kept() == (prompts[2:], same | {"13 words in a row as a held-out prompt": 1})
    assert kept(overlap=0) == (prompts[1:], same)
    assert kept(overlap=5) == (prompts[2:3], same | {"5 words in a row as a held-out prompt": 2})


def test_verdicts_on_held_out_prompts_are_left_out(tmp_path: Path) -> None:
    eft = [{"prompt": f"Judge this: {LONG.format('a')}. It was answered: no.", "response": "Score: 1"}]
    eft += [{"prompt": "Judge this: hello", "response": "Score: 3"}]
    (tmp_path / "eft.jsonl").write_text("\n".join(map(json.dumps, eft)))
    rows = [{"prompt": LONG.format("a"), "response": "x"}]
    found = table(tmp_path / "rows.jsonl", rows, evaluation=1, eft_path=str(tmp_path / "eft.jsonl"))
    assert [g.prompt.text for g in found.split("eft", 0)] == ["Judge this: hello"]
    assert found.left_out == {"13 words in a row as a held-out prompt": 1}


def test_many_rows_are_read_in_time_that_grows_with_their_number(tmp_path: Path) -> None:
    pair = {"chosen": "a" * 300, "rejected": "b" * 300}
    rows = [{"prompt": f"question {k} {'word ' * 20}", **pair} for k in range(30_000)]
    found = table(tmp_path / "rows.jsonl", rows)
    before = time.process_time()
    assert sum(len(found.split(name, 0)) for name in SPLITS[:3]) == 30_000
    assert time.process_time() - before < 20  # it takes a tenth of that; comparing rows with each other, half an hour
