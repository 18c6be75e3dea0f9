"""Wins, ties and losses against another model: by truth, by a judge's scores, by a judge that sees both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selfreward import Completion, Metric, Request
from selfreward.core.contracts.options import cross_problems, option_docs
from selfreward.plugins.evaluators.head_to_head import HeadToHead, HeadToHeadConfig
from selfreward.plugins.evaluators.intervals import share_interval
from selfreward.plugins.evaluators.winner import By

SHARES = ("win", "tie", "lose", "win_rate")


@pytest.fixture
def fields(group: Callable[..., Any]) -> dict[str, Any]:
    mine = [group(f"{k}?", text) for k, text in enumerate(["a5", "b5", "c3", "d1", "e5", "only mine"])]
    theirs = [group(f"{k}?", text) for k, text in enumerate(["a1", "b3", "c3", "d5", "e?"])][::-1]
    scores = {"a5": 1, "a1": 5, "b5": 5, "b3": 3, "c3": 3, "d1": 1, "d5": 1, "e5": 5, "e?": None}
    return {"answers": mine, "previous": ("sft", theirs), "scores": scores}


TRUTHS = {t: {"true_score": float(t[1])} for t in ("a5", "a1", "b5", "b3", "c3", "d1", "d5", "e5")}


def measured(found: Any) -> dict[str, Metric]:
    metrics = list(found)
    assert {(m.model, m.evaluator) for m in metrics} <= {("M1", "head_to_head")}
    assert len({m.metric for m in metrics}) == len(metrics)
    return {m.metric: m for m in metrics}


def shares(metrics: dict[str, Metric]) -> list[float | None]:
    return [metrics[name].value for name in SHARES]


def test_by_truth_where_there_is_one(fields: dict[str, Any], context: Callable[..., Any]) -> None:
    known = context(truths=TRUTHS, **fields)
    metrics = measured(HeadToHead(HeadToHeadConfig()).evaluate(known))
    assert shares(metrics) == [0.5, 0.25, 0.25, 0.625]
    assert {metrics[name].n for name in SHARES} == {4}
    assert (metrics["win"].low, metrics["win"].high) == share_interval(2, 4)
    assert (metrics["win_rate"].low, metrics["win_rate"].high) == share_interval(2.5, 4)
    assert known.judged == 0
    assert known.counted == {"unscored_pairs": 1}


@pytest.mark.parametrize(("by", "truths"), [(By.auto, None), (By.judge, None), (By.judge, TRUTHS)])
def test_by_the_judge(by: By, truths: Any, fields: dict[str, Any], context: Callable[..., Any]) -> None:
    asked = context(truths=truths, **fields)
    metrics = measured(HeadToHead(HeadToHeadConfig(by)).evaluate(asked))
    assert shares(metrics) == [0.25, 0.5, 0.25, 0.5]
    assert asked.judged == 8  # the same text twice is a tie, and nobody is asked about it
    assert asked.counted == {"unscored_pairs": 1}
    assert (metrics["head_to_head_parse_rate"].value, metrics["head_to_head_parse_rate"].n) == (7 / 8, 8)


def test_lengths_stand_beside_the_win_rate(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    mine = [group(f"{k}?", "m" * (10 + 3 * k)) for k in range(20)]
    theirs = [group(f"{k}?", "t" * 12) for k in range(20)]
    scores = {"m" * (10 + 3 * k): k % 6 for k in range(20)} | {"t" * 12: 2}
    metrics = measured(
        HeadToHead(HeadToHeadConfig()).evaluate(context(answers=mine, previous=("sft", theirs), scores=scores))
    )
    assert (metrics["answer_length"].value, metrics["against_length"].value) == (38.5, 12)
    assert metrics["answer_length"].low < 38.5 < metrics["answer_length"].high
    controlled = metrics["lc_win_rate"]
    assert controlled.n == 20
    assert 0 < controlled.low < controlled.value < controlled.high < 1


def test_the_first_model_has_nobody_to_meet(fields: dict[str, Any], context: Callable[..., Any]) -> None:
    assert list(HeadToHead(HeadToHeadConfig()).evaluate(context(**fields | {"previous": None}))) == []


@pytest.mark.parametrize(
    "options", [{"against": "M7"}, {"judge_model": "M7"}, {"against": "M1"}], ids=["against", "judge", "itself"]
)
def test_a_model_that_plays_no_role_yet(options: Any, fields: dict[str, Any], context: Callable[..., Any]) -> None:
    asked = context(**fields)
    asked.others = {"M1": asked}
    assert list(HeadToHead(HeadToHeadConfig(**options)).evaluate(asked)) == []
    assert asked.judged == 0


def test_any_two_models_and_any_judge(fields: dict[str, Any], context: Callable[..., Any]) -> None:
    theirs = context(answers=fields["previous"][1], model="M0")
    judge = context(scores=fields["scores"], model="big")
    asked = context(truths=TRUTHS, answers=fields["answers"], others={"M0": theirs, "judge": judge})
    metrics = measured(HeadToHead(HeadToHeadConfig(against="M0", judge_model="judge")).evaluate(asked))
    assert shares(metrics) == [0.25, 0.5, 0.25, 0.5]  # who names a judge wants its opinion, not the truth
    assert (asked.judged, judge.judged) == (0, 8)


def test_too_few_pairs_are_none_not_zero(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    asked = context(answers=[group("q", "x")], previous=("sft", [group("q", "y")]), scores={"x": None, "y": 3})
    metrics = measured(HeadToHead(HeadToHeadConfig()).evaluate(asked))
    assert all((m.value, m.low, m.high, m.n) == (None, None, None, 0) for n, m in metrics.items() if "parse" not in n)
    asked.scores = {"x": 4, "y": 3}
    lone = measured(HeadToHead(HeadToHeadConfig()).evaluate(asked))
    assert all((m.value, m.n) == (None, 1) for n, m in lone.items() if "parse" not in n)
    asked.answers = []
    assert all(m.n == 0 for m in measured(HeadToHead(HeadToHeadConfig()).evaluate(asked)).values())


def test_by_pair_both_orders_count(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    answers = {"win": ("m1", "t1"), "lose": ("m2", "t2"), "biased": ("m3", "t3"), "tie": ("m4", "t4")}
    answers |= {"half": ("m5", "t5"), "unread": ("m6", "t6"), "same": ("m7", "m7")}
    verdicts = {"m1t1": "[[A]]", "t1m1": "[[B]]", "m2t2": "[[B]]", "t2m2": "[[A]]", "m3t3": "[[A]]", "t3m3": "[[A]]"}
    verdicts |= {"m4t4": "[[C]]", "t4m4": "[[C]]", "m5t5": "[[A]]", "t5m5": "[[C]]", "m6t6": "[[A]]", "t6m6": "well"}

    def reply(request: Request) -> str:
        shown = request.messages[-1]["content"]
        return next(v for p, v in verdicts.items() if p[:2] in shown and -1 < shown.find(p[:2]) < shown.find(p[2:]))

    judge = context(reply=reply, model="big")
    asked = context(
        answers=[group(f"{k}?", mine) for k, (mine, _) in answers.items()],
        previous=("sft", [group(f"{k}?", theirs) for k, (_, theirs) in answers.items()]),
        others={"judge": judge},
    )
    metrics = measured(HeadToHead(HeadToHeadConfig(By.pair, judge_model="judge")).evaluate(asked))
    # a disagreement of the orders is a tie, and so is the same text, which nobody is asked about
    assert shares(metrics) == pytest.approx([1 / 6, 4 / 6, 1 / 6, 0.5])
    assert len(judge.requests) == 12
    assert not asked.requests
    assert (metrics["head_to_head_parse_rate"].value, metrics["head_to_head_parse_rate"].n) == (11 / 12, 12)
    assert (metrics["head_to_head_orders_agree"].value, metrics["head_to_head_orders_agree"].n) == (0.6, 5)
    assert asked.counted == {"unscored_pairs": 1}
    seeds = [request.seed for request in judge.requests]
    assert len(set(seeds)) == len(seeds)
    assert {request.sampling.temperature for request in judge.requests} == {0}


def test_a_verdict_cut_off_is_none(group: Callable[..., Any], context: Callable[..., Any], tmp_path: Any) -> None:
    rubric = tmp_path / "open.yaml"
    rubric.write_text(
        "name: open\nsource: test\ntemplate: '{instruction} {response_a} {response_b}'\nverdict: 'Winner: {winner}'\n"
    )
    cut = Completion("Winner: A", [1], "length", 0)  # it may have become "A or B"
    fields = {"answers": [group("q", "x")], "previous": ("sft", [group("q", "y")])}
    pair = HeadToHead(HeadToHeadConfig(By.pair, rubric=str(rubric)))
    assert measured(pair.evaluate(context(reply=lambda r: cut, **fields)))["head_to_head_parse_rate"].value == 0
    read = measured(pair.evaluate(context(reply=lambda r: "Winner: A", **fields)))
    assert read["head_to_head_parse_rate"].value == 1


def test_problems(context: Callable[..., Any]) -> None:
    strict = HeadToHead(HeadToHeadConfig(By.truth))
    assert "by=judge" in strict.problems(context())[0]
    assert strict.problems(context(truths={})) == HeadToHead(HeadToHeadConfig()).problems(context()) == []
    single = HeadToHead(HeadToHeadConfig(By.pair, rubric="additive"))
    assert "scores one answer" in single.problems(context())[0]
    pair = HeadToHead(HeadToHeadConfig(By.pair))
    assert pair.problems(context()) == []
    assert [path.name for path in pair.files(context())] == ["pairwise.yaml"]
    assert strict.files(context()) == []
    assert list(cross_problems(HeadToHeadConfig(By.truth, judge_model="judge"), "head_to_head"))
    assert all(option_docs(HeadToHeadConfig)[name] for name in vars(HeadToHeadConfig()))


def test_a_real_model_judges_pairs(group: Callable[..., Any], measuring: Callable[..., Any], tmp_path: Any) -> None:
    rubric = tmp_path / "short.yaml"  # the micro world's template knows no system turn
    template = "{instruction} A: {response_a} B: {response_b}"
    rubric.write_text(f"name: short\nsource: test\ntemplate: '{template}'\nverdict: '[[{{winner}}]]'\n")
    asked = measuring()
    asked.answering = lambda: [group(f"Say a {w}.", f"a {w} is there.") for w in ("fox", "hen")]
    asked.previous = ("M0", [group(f"Say a {w}.", f"the {w} runs and runs.") for w in ("fox", "hen")])
    options = HeadToHeadConfig(By.pair, rubric=str(rubric), max_new_tokens=12)
    metrics = measured(HeadToHead(options).evaluate(asked))
    # M0 was never taught to compare: nothing it writes may become a verdict
    assert (metrics["head_to_head_parse_rate"].value, metrics["head_to_head_parse_rate"].n) == (0, 4)
    assert metrics["win"].value is None
    assert asked.counters["completions"] == 4
    assert asked.counters["unscored_pairs"] == 2
