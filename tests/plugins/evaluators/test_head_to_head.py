"""Wins, ties and losses against the previous model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selfreward.core.options import option_docs
from selfreward.plugins.evaluators.head_to_head import By, HeadToHead, HeadToHeadConfig
from selfreward.plugins.evaluators.intervals import share_interval


@pytest.fixture
def fields(group: Callable[..., Any]) -> dict[str, Any]:
    mine = [group(f"{k}?", text) for k, text in enumerate(["a5", "b5", "c3", "d1", "e5", "only mine"])]
    theirs = [group(f"{k}?", text) for k, text in enumerate(["a1", "b3", "c3", "d5", "e?"])][::-1]
    scores = {"a5": 1, "a1": 5, "b5": 5, "b3": 3, "c3": 3, "d1": 1, "d5": 1, "e5": 5, "e?": None}
    return {"answers": mine, "previous": ("sft", theirs), "scores": scores}


TRUTHS = {t: {"true_score": float(t[1])} for t in ("a5", "a1", "b5", "b3", "c3", "d1", "d5", "e5")}


def test_by_truth_where_there_is_one(fields: dict[str, Any], context: Callable[..., Any]) -> None:
    known = context(truths=TRUTHS, **fields)
    metrics = list(HeadToHead(HeadToHeadConfig()).evaluate(known))
    assert [(m.metric, m.value, m.n) for m in metrics] == [("win", 0.5, 4), ("tie", 0.25, 4), ("lose", 0.25, 4)]
    assert (metrics[0].low, metrics[0].high) == share_interval(2, 4)
    assert {(m.model, m.evaluator) for m in metrics} == {("M1", "head_to_head")}
    assert known.judged == 0
    assert known.counted == {"unscored_pairs": 1}


@pytest.mark.parametrize(("by", "truths"), [(By.auto, None), (By.judge, None), (By.judge, TRUTHS)])
def test_by_the_judge(by: By, truths: Any, fields: dict[str, Any], context: Callable[..., Any]) -> None:
    asked = context(truths=truths, **fields)
    metrics = HeadToHead(HeadToHeadConfig(by)).evaluate(asked)
    assert [(m.metric, m.value, m.n) for m in metrics] == [("win", 0.25, 4), ("tie", 0.5, 4), ("lose", 0.25, 4)]
    assert asked.judged == 10
    assert asked.counted == {"unscored_pairs": 1}


def test_the_first_model_has_nobody_to_meet(fields: dict[str, Any], context: Callable[..., Any]) -> None:
    assert list(HeadToHead(HeadToHeadConfig()).evaluate(context(**fields | {"previous": None}))) == []


def test_no_pair_with_scores_is_none_not_zero(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    asked = context(answers=[group("q", "x")], previous=("sft", [group("q", "y")]), scores={"x": None, "y": 3})
    metrics = list(HeadToHead(HeadToHeadConfig()).evaluate(asked))
    assert [(m.value, m.low, m.high, m.n) for m in metrics] == [(None, None, None, 0)] * 3


def test_truth_wants_a_truth(context: Callable[..., Any]) -> None:
    strict = HeadToHead(HeadToHeadConfig(By.truth))
    assert "by=judge" in strict.problems(context())[0]
    assert strict.problems(context(truths={})) == HeadToHead(HeadToHeadConfig()).problems(context()) == []
    assert option_docs(HeadToHeadConfig)["by"]
