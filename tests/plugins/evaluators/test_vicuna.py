"""Vicuna-80: published files, both ways of judging, unreadable verdicts, and a real model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfreward import Completion, Metric, Request, UserError
from selfreward.core.contracts.options import cross_problems, option_docs
from selfreward.formats.fastchat import read_answers, read_questions
from selfreward.plugins.evaluators.fastchat import FastChatConfig
from selfreward.plugins.evaluators.vicuna import Vicuna

CATEGORIES = {"generic": 10, "knowledge": 10, "roleplay": 10, "common-sense": 10, "fermi": 10, "counterfactual": 10}
CATEGORIES |= {"coding": 7, "math": 3, "writing": 10}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    categories = ["math", "math", "writing", "writing"]
    rows = [{"question_id": k, "category": c, "turns": [f"Question {k}?"]} for k, c in enumerate(categories, 1)]
    return write(tmp_path / "question.jsonl", rows)


def by_question(said: dict[int, str]) -> Callable[[Request], str]:
    """Replies by the number of the question that stands in the request."""
    return lambda request: next(text for k, text in said.items() if f"Question {k}?" in request.messages[-1]["content"])


def answering(said: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """A model that answers plain questions with ``mine 1.`` and the like, and leaves judging to ``said``."""

    def reply(request: Request) -> Any:
        asked = request.messages[-1]["content"]
        return f"mine {asked.split()[1][:-1]}." if asked.startswith("Question") else said(request)

    return reply


def measured(found: Any) -> dict[str, Metric]:
    metrics = list(found)
    assert {(m.model, m.evaluator) for m in metrics} == {("M1", "vicuna")}
    assert len({m.metric for m in metrics}) == len(metrics)
    return {m.metric.removeprefix("vicuna_"): m for m in metrics}


def test_graded_one_by_one(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    said = {1: "Rating: [[4]]", 2: "Rating: [[9]]", 3: "good, 10 of 10", 4: "[[2]] no: [[7.5]]"}
    asked = context(reply=answering(by_question(said)), folder=tmp_path)
    metrics = measured(Vicuna(FastChatConfig(path=questions)).evaluate(asked))
    assert (metrics["score"].value, metrics["score"].n) == (pytest.approx((4 + 9 + 7.5) / 3), 3)
    assert metrics["score"].low < metrics["score"].value < metrics["score"].high
    assert (metrics["score_math"].value, metrics["score_math"].n) == (6.5, 2)
    assert (metrics["score_writing"].value, metrics["score_writing"].n) == (None, 1)  # one rating is no figure
    assert (metrics["parse_rate"].value, metrics["parse_rate"].n) == (0.75, 4)
    assert (metrics["answer_length"].value, metrics["answer_length"].n) == (7, 4)
    assert "turn_1" not in metrics
    temperatures = [request.sampling.temperature for request in asked.requests]
    assert temperatures == [0, 0, 0.7, 0.7, 0, 0, 0, 0]  # FastChat's by category, then four greedy verdicts
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["question_id"], row["score"]) for row in verdicts] == [(1, 4), (2, 9), (3, None), (4, 7.5)]
    assert verdicts[0] | {"judgment": ""} == {
        "question_id": 1,
        "turn": 1,
        "judge": ["M1", "scalar"],
        "score": 4,
        "judgment": "",
    }
    assert read_answers(tmp_path / "answers.jsonl")[0] == {k: [f"mine {k}."] for k in range(1, 5)}


def test_a_reference_is_shown_where_there_is_one(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "reference_answer").mkdir()
    row = {"question_id": 2, "choices": [{"turns": ["forty-two"]}]}
    write(tmp_path / "reference_answer" / "gpt-4.jsonl", [row])
    asked = context(reply=answering(lambda r: "[[5]]"), folder=tmp_path)
    config = FastChatConfig(path=questions)
    measured(Vicuna(config).evaluate(asked))
    shown = [request.messages[-1]["content"] for request in asked.requests[4:]]
    assert ["forty-two" in text for text in shown] == [False, True, False, False]
    known = {path.name for path in Vicuna(config).files(asked)}
    assert known == {"question.jsonl", "gpt-4.jsonl", "scalar.yaml", "reference_guided.yaml"}


def test_compared_in_both_orders(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    theirs = context(reply=answering(lambda r: ""), model="M0")
    theirs.reply = lambda request: f"theirs, longer {request.messages[-1]['content'].split()[1][:-1]}."
    winners = {1: ("A", "B"), 2: ("B", "A"), 3: ("A", "A"), 4: ("A", "?")}

    def said(request: Request) -> str:
        text = request.messages[-1]["content"]
        number = next(k for k in winners if f"Question {k}?" in text)
        return f"[[{winners[number][text.index('mine') > text.index('theirs')]}]]"

    asked = context(reply=answering(said), folder=tmp_path, others={"M0": theirs})
    metrics = measured(Vicuna(FastChatConfig(path=questions, against="M0")).evaluate(asked))
    shares = [metrics[name].value for name in ("win", "tie", "lose", "win_rate")]
    assert shares == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.5])
    assert (metrics["win_rate_math"].value, metrics["win_rate_math"].n) == (0.5, 2)
    assert (metrics["win_rate_writing"].value, metrics["win_rate_writing"].n) == (None, 1)
    assert (metrics["parse_rate"].value, metrics["parse_rate"].n) == (7 / 8, 8)
    assert metrics["orders_agree"].value == pytest.approx(2 / 3)
    assert (metrics["answer_length"].value, metrics["against_length"].value) == (7, 17)
    assert metrics["lc_win_rate"].value is None  # three pairs cannot tell the worth of length
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [row["preference"] for row in verdicts] == [1, 0, 0.5, None]
    assert verdicts[3]["by_order"] == [1, None]


def test_compared_with_a_file(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    rows = [{"question_id": k, "choices": [{"turns": [text]}]} for k, text in ((1, "mine 1."), (2, "x"), (3, "y"))]
    answers = write(tmp_path / "baseline.jsonl", [*rows, {"question_id": 4}])
    asked = context(reply=answering(lambda r: "[[C]]"), folder=tmp_path)
    metrics = measured(Vicuna(FastChatConfig(path=questions, against_answers=answers)).evaluate(asked))
    assert (metrics["tie"].value, metrics["tie"].n) == (1, 3)
    assert metrics["parse_rate"].n == 4  # the same text is not asked about
    assert asked.counted["without_opponent"] == 1
    assert asked.counted["rows_left_out"] == 1
    assert "baseline.jsonl:4: 'choices' is missing" in (tmp_path / "left_out.txt").read_text()


def test_previous_is_asked_anew(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    other = context(reply=lambda r: "theirs", model="sft")
    asked = context(reply=answering(lambda r: "[[A]]"), folder=tmp_path, previous=("sft", []), others={"sft": other})
    metrics = measured(Vicuna(FastChatConfig(path=questions, against="previous")).evaluate(asked))
    assert metrics["tie"].value == 1  # "A" in both orders is the judge's love of the first place
    assert metrics["orders_agree"].value == 0
    assert [r.sampling for r in other.requests] == [r.sampling for r in asked.requests[:4]]
    asked.previous = None
    assert list(Vicuna(FastChatConfig(path=questions, against="previous")).evaluate(asked)) == []


def test_published_prompts_are_asked(
    questions: str, context: Callable[..., Any], tmp_path: Path, shared_data: Path
) -> None:
    prompts = shared_data / "fastchat" / "judge_prompts.jsonl"
    references = write(tmp_path / "refs.jsonl", [{"question_id": 1, "choices": [{"turns": ["forty-two"]}]}])
    options = {"path": questions, "judge_prompts": str(prompts), "references": references}
    asked = context(reply=answering(lambda r: "[[6]]"), folder=tmp_path)
    assert measured(Vicuna(FastChatConfig(**options)).evaluate(asked))["score"].value == 6
    known = {row["name"]: row for row in map(json.loads, prompts.read_text().splitlines())}
    math, plain = asked.requests[4:6]
    template = known["single-math-v1"]["prompt_template"]
    filled = {"{question}": "Question 1?", "{ref_answer_1}": "forty-two", "{answer}": "mine 1."}
    for name, text in filled.items():
        template = template.replace(name, text)
    assert math.messages == [
        {"role": "system", "content": known["single-math-v1"]["system_prompt"]},
        {"role": "user", "content": template},
    ]
    assert "reference" not in plain.messages[-1]["content"]
    names = {FastChatConfig(**options, against="x").rubric_for(t, k).split(":")[-1] for t in (1, 2) for k in (0, 1)}
    names |= {FastChatConfig(**options).rubric_for(t, k).split(":")[-1] for t in (1, 2) for k in (0, 1)}
    assert names == set(known)
    assert Vicuna(FastChatConfig(**options)).problems(asked) == []


def test_the_published_files(shared_data: Path, context: Callable[..., Any], tmp_path: Path) -> None:
    folder = shared_data / "fastchat" / "vicuna_bench"
    config = FastChatConfig(path=str(folder / "question.jsonl"))
    questions, left_out = read_questions(Path(config.path), config.reference_file, None)
    assert (len(questions), left_out) == (80, [])
    assert Counter(q.category for q in questions) == CATEGORIES
    assert {q.category for q in questions if q.references} == {"coding", "math"}
    assert {len(q.turns) for q in questions} == {1}
    asked = context(reply=lambda r: "[[A]]" if "assistant A" in str(r.messages) else "an answer", folder=tmp_path)
    asked.others = {"M0": context(reply=lambda r: "another", model="M0")}
    metrics = measured(Vicuna(FastChatConfig(path=config.path, against="M0")).evaluate(asked))
    assert (metrics["tie"].value, metrics["tie"].n, metrics["parse_rate"].n) == (1, 80, 160)
    assert metrics["win_rate_common_sense"].n == 10
    assert Vicuna(config).problems(asked) == []


def test_per_category(questions: str) -> None:
    found, _ = read_questions(Path(questions), None, 1)
    assert [question.id for question in found] == [1, 3]


def test_nobody_there_yet(questions: str, context: Callable[..., Any]) -> None:
    for options in ({"against": "M7"}, {"judge_model": "M7"}):
        asked = context()
        assert list(Vicuna(FastChatConfig(path=questions, **options)).evaluate(asked)) == []
        assert not asked.requests


def test_problems(questions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    assert "path=" in next(cross_problems(FastChatConfig(), "vicuna"))
    both = FastChatConfig(path=questions, against="M0", against_answers="x", rubric="scalar", judge_prompts="y")
    assert len(list(cross_problems(both, "vicuna"))) == 2
    assert Vicuna(FastChatConfig(path=questions)).problems(context()) == []
    assert "scores one" in Vicuna(FastChatConfig(path=questions, against="M0", rubric="scalar")).problems(context())[0]
    assert "compares two" in Vicuna(FastChatConfig(path=questions, rubric="pairwise")).problems(context())[0]
    with pytest.raises(UserError, match="not readable"):
        Vicuna(FastChatConfig(path=str(tmp_path / "no.jsonl"))).problems(context())
    bad = write(tmp_path / "bad.jsonl", [{"question_id": 1}, {"question_id": True, "category": "x", "turns": ["?"]}, 7])
    with pytest.raises(UserError, match=r"(?s)no usable row, 3 refused.*bad\.jsonl:1: 'category' is missing"):
        Vicuna(FastChatConfig(path=bad)).problems(context())
    assert all(option_docs(FastChatConfig)[name] for name in vars(FastChatConfig()))


def test_a_rating_cut_off_at_a_number_is_unreadable(
    questions: str, context: Callable[..., Any], tmp_path: Path
) -> None:
    cut = Completion("Score: 1", [1], "length", 0)
    asked = context(reply=answering(lambda r: cut), folder=tmp_path)
    metrics = measured(Vicuna(FastChatConfig(path=questions, rubric="additive")).evaluate(asked))
    assert (metrics["score"].value, metrics["parse_rate"].value) == (None, 0)


def test_a_real_model_answers_and_judges(questions: str, measuring: Callable[..., Any]) -> None:
    asked = measuring()
    options = {"path": questions, "rubric": "micro", "max_new_tokens": 24, "judge_max_new_tokens": 64}
    metrics = measured(Vicuna(FastChatConfig(**options)).evaluate(asked))
    assert metrics["parse_rate"].n == 4
    assert metrics["parse_rate"].value >= 0.5
    assert 0 <= metrics["score"].value <= 5
    assert metrics["answer_length"].value > 0
    assert asked.counters["completions"] == 8
    assert measured(Vicuna(FastChatConfig(**options)).evaluate(measuring())) == metrics
