"""The oracle averages what the truth says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selfreward.plugins.evaluators.intervals import mean_interval, share_interval
from selfreward.plugins.evaluators.oracle import Oracle, OracleConfig


def test_every_key_is_averaged_with_its_interval(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    truths = {
        "good": {"true_score": 5.0, "fully_correct": 1.0, "fluent": 1.0},
        "fair": {"true_score": 3.0, "fully_correct": 0.0, "fluent": 1.0},
        "bad": {"true_score": 1.0, "fully_correct": 0.0, "fluent": 0.0},
    }
    answers = [group(f"{k}?", text) for k, text in enumerate(["good", "fair", "bad", "bad", "unknown to the truth"])]
    metrics = {m.metric: m for m in Oracle(OracleConfig()).evaluate(context(truths=truths, answers=answers))}
    assert list(metrics) == ["true_score", "fully_correct", "fluent"]
    assert {m.model for m in metrics.values()} == {"M1"}
    assert {m.evaluator for m in metrics.values()} == {"oracle"}
    score, correct = metrics["true_score"], metrics["fully_correct"]
    assert score.value == 2.5
    assert score.n == 4
    assert (score.low, score.high) == pytest.approx(mean_interval([5.0, 3.0, 1.0, 1.0]))
    assert correct.value == 0.25
    assert (correct.low, correct.high) == share_interval(1, 4)
    assert metrics["fluent"].value == 0.5


def test_one_answer_has_no_spread(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    [metric] = Oracle(OracleConfig()).evaluate(context(truths={"a": {"true_score": 1}}, answers=[group("q", "a")]))
    assert (metric.value, metric.low, metric.high, metric.n) == (1.0, None, None, 1)


def test_no_truth_and_no_answers_give_nothing(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    oracle = Oracle(OracleConfig())
    without = context(answers=[group("q", "a")])
    assert list(oracle.evaluate(without)) == list(oracle.evaluate(context(truths={}))) == []
    assert oracle.problems(without) == []
    assert not oracle.uses_model
