"""MT-Bench: two turns, scores by turn and category, references, and a real model."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfreward import Metric, Request
from selfreward.formats.fastchat import TEMPERATURES, read_questions
from selfreward.plugins.evaluators.fastchat import FastChatConfig
from selfreward.plugins.evaluators.mt_bench import MtBench


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "question.jsonl"
    rows = [
        {"question_id": k, "category": "math" if k % 2 else "stem", "turns": [f"First {k}?", f"Second {k}?"]}
        for k in range(1, 7)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def scripted(ratings: dict[tuple[str, int], str]) -> Callable[[Request], str]:
    """Answers ``first 1`` and ``second 1``; judges by the last question that it is shown."""

    def reply(request: Request) -> str:
        asked = request.messages[-1]["content"]
        if asked.startswith(("First", "Second")):
            return f"{asked.split()[0].lower()} {asked.split()[1][:-1]}"
        return next(
            said
            for (turn, k), said in ratings.items()
            if f"{turn} {k}?" in asked and (turn == "Second" or "Second" not in asked)
        )

    return reply


def measured(found: Any) -> dict[str, Metric]:
    metrics = list(found)
    assert {(m.model, m.evaluator) for m in metrics} == {("M1", "mt_bench")}
    return {m.metric.removeprefix("mt_bench_"): m for m in metrics}


RATINGS = {("First", k): f"[[{k}]]" for k in range(1, 7)} | {("Second", k): f"[[{k + 3}]]" for k in range(1, 7)}


def test_both_turns(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    asked = context(reply=scripted(RATINGS | {("Second", 6): "no rating"}), folder=tmp_path)
    metrics = measured(MtBench(FastChatConfig(path=questions)).evaluate(asked))
    first, second = [1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8]
    assert (metrics["turn_1"].value, metrics["turn_1"].n) == (3.5, 6)
    assert (metrics["turn_2"].value, metrics["turn_2"].n) == (6, 5)
    assert (metrics["score"].value, metrics["score"].n) == (pytest.approx(np.mean(first + second)), 11)
    assert (metrics["score_math"].value, metrics["score_math"].n) == (pytest.approx((1 + 3 + 5 + 4 + 6 + 8) / 6), 6)
    assert (metrics["parse_rate"].value, metrics["parse_rate"].n) == (11 / 12, 12)
    assert (metrics["answer_length"].value, metrics["answer_length"].n) == (7.5, 12)
    # one turn each: the normal interval of a mean
    half = 1.96 * np.std(first, ddof=1) / math.sqrt(6)
    assert (metrics["turn_1"].low, metrics["turn_1"].high) == pytest.approx((3.5 - half, 3.5 + half))
    # the turns of a question go up and down together, so eleven ratings say less than eleven questions would
    naive = 1.96 * np.std(first + second, ddof=1) / math.sqrt(11)
    assert metrics["score"].high - metrics["score"].value > naive


def test_equal_turns_count_as_one_question(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    twice = {(turn, k): f"[[{k}]]" for turn in ("First", "Second") for k in range(1, 7)}
    metrics = measured(
        MtBench(FastChatConfig(path=questions)).evaluate(context(reply=scripted(twice), folder=tmp_path))
    )
    once = metrics["turn_1"]
    assert (metrics["score"].value, metrics["score"].low, metrics["score"].high) == pytest.approx(
        (once.value, once.low, once.high)
    )


def test_the_second_turn_follows_the_models_own_first_answer(
    questions: str, context: Callable[..., Any], tmp_path: Path
) -> None:
    asked = context(reply=scripted(RATINGS), folder=tmp_path)
    list(MtBench(FastChatConfig(path=questions)).evaluate(asked))
    assert asked.requests[6].messages == [
        {"role": "user", "content": "First 1?"},
        {"role": "assistant", "content": "first 1"},
        {"role": "user", "content": "Second 1?"},
    ]
    temperatures = {0.1 if k % 2 else 0.0 for k in range(6)}
    assert {request.sampling.temperature for request in asked.requests[:12]} == temperatures
    assert len({request.seed for request in asked.requests}) == 24
    turn_2 = asked.requests[13].messages[-1]["content"]
    assert "User: First 1?\n\nAssistant: first 1\n\nUser: Second 1?" in turn_2  # a rubric without turns shows it whole
    assert "second 1" in turn_2


def test_published_prompts_of_both_turns(
    questions: str, context: Callable[..., Any], tmp_path: Path, shared_data: Path
) -> None:
    references = tmp_path / "refs.jsonl"
    references.write_text(json.dumps({"question_id": 1, "choices": [{"turns": ["ref one", "ref two"]}]}))
    prompts = str(shared_data / "fastchat" / "judge_prompts.jsonl")
    asked = context(reply=scripted(RATINGS), folder=tmp_path)
    config = FastChatConfig(path=questions, references=str(references), judge_prompts=prompts)
    assert measured(MtBench(config).evaluate(asked))["score"].value == 5
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    used = [(row["question_id"], row["turn"], row["judge"][1]) for row in verdicts[:4]]
    assert used == [
        (1, 1, "single-math-v1"),
        (1, 2, "single-math-v1-multi-turn"),
        (2, 1, "single-v1"),
        (2, 2, "single-v1-multi-turn"),
    ]
    turn_2 = asked.requests[13].messages[-1]["content"]
    places = [turn_2.index(text) for text in ("ref one", "ref two", "first 1", "second 1")]
    assert places == sorted(places)


def test_compared_turn_by_turn(questions: str, context: Callable[..., Any], tmp_path: Path, shared_data: Path) -> None:
    prompts = str(shared_data / "fastchat" / "judge_prompts.jsonl")
    other = context(reply=lambda request: "theirs", model="M0")

    def reply(request: Request) -> str:
        asked = request.messages[-1]["content"]
        if asked.startswith(("First", "Second")):
            return f"mine{len(request.messages)}"
        return "[[A]]" if asked.index("mine") < asked.index("theirs") else "[[B]]"

    asked = context(reply=reply, folder=tmp_path, others={"M0": other})
    config = FastChatConfig(path=questions, judge_prompts=prompts, against="M0")
    metrics = measured(MtBench(config).evaluate(asked))
    assert (metrics["win"].value, metrics["win"].n, metrics["parse_rate"].n) == (1, 12, 24)
    assert MtBench(config).problems(asked) == []
    plain = FastChatConfig(path=questions, against="M0")
    assert "both conversations" in MtBench(plain).problems(asked)[0]


def test_the_published_files(shared_data: Path, context: Callable[..., Any], tmp_path: Path) -> None:
    config = FastChatConfig(path=str(shared_data / "fastchat" / "mt_bench" / "question.jsonl"))
    questions, left_out = read_questions(Path(config.path), config.reference_file, None)
    assert (len(questions), left_out) == (80, [])
    assert Counter(q.category for q in questions) == dict.fromkeys(TEMPERATURES, 10)
    assert {len(q.turns) for q in questions} == {2}
    assert Counter(q.category for q in questions if len(q.references) == 2) == dict.fromkeys(
        ["reasoning", "math", "coding"], 10
    )
    assert MtBench(config).problems(context()) == []
    asked = context(reply=lambda r: "[[7]]" if "[[x]]" in r.messages[-1]["content"] else "answer", folder=tmp_path)
    metrics = measured(MtBench(config).evaluate(asked))
    assert (metrics["score"].value, metrics["score"].n) == (7, 160)
    assert (metrics["turn_2"].n, metrics["score_extraction"].n) == (80, 20)
    references = sum("reference answer" in r.messages[-1]["content"] for r in asked.requests[160:])
    assert references == 60


def test_a_real_model_answers_two_turns(questions: str, measuring: Callable[..., Any]) -> None:
    asked = measuring()
    config = FastChatConfig(path=questions, per_category=1, rubric="micro", max_new_tokens=16, judge_max_new_tokens=64)
    metrics = measured(MtBench(config).evaluate(asked))
    assert metrics["parse_rate"].n == 4
    assert metrics["answer_length"].value > 0
    assert asked.counters["completions"] == 8
    answers = [json.loads(line) for line in (asked.folder / "answers.jsonl").read_text().splitlines()]
    assert [len(row["choices"][0]["turns"]) for row in answers] == [2, 2]
