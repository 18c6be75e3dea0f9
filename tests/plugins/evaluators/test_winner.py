"""Whose answer is better, where many models meet: each answer is scored once, in whatever pairs it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selfreward import Request
from selfreward.plugins.evaluators.elo import Elo, EloConfig
from selfreward.plugins.evaluators.winner import By


@pytest.fixture
def met(group: Callable[..., Any]) -> list[Any]:
    """Three answers to one prompt, all pairs, and two equal ones to another."""
    one, two, three, four = (group("a?", text) for text in ("one", "two", "three", "two"))
    return [(one, two), (one, three), (two, three), (two, four), (group("b?", "same"), group("b?", "same"))]


@pytest.mark.parametrize(
    ("fields", "by", "asked"),
    [
        ({"scores": {"one": 1, "two": 2, "three": None}}, By.judge, 3),
        ({"truths": {"one": {"true_score": 1.0}, "two": {"true_score": 2.0}}}, By.truth, 0),
    ],
    ids=["judge", "truth"],
)
def test_the_higher_score_wins_and_the_same_text_ties(met, context, fields, by, asked) -> None:
    ran = context(**fields)
    pairs, more = Elo(EloConfig(by)).decided(met, ran, ran)
    assert [pair.preference for pair in pairs] == [0.0, None, None, 0.5, 0.5]
    assert [pair.item for pair in pairs] == [mine.prompt.prompt_id for mine, _ in met]
    assert pairs[0].mine[-1] == {"role": "assistant", "content": "one"}
    assert ran.judged == asked
    assert ran.counted == {"unscored_pairs": 2}
    assert [(m.metric, m.value, m.n) for m in more] == ([("elo_parse_rate", 2 / 3, 3)] if asked else [])


def test_a_judge_that_sees_both_is_asked_in_both_orders(met, context) -> None:
    def reply(request: Request) -> str:
        shown = request.messages[-1]["content"]
        first, second = sorted(("one", "two", "three"), key=lambda text: shown.find(text) % 10**9)[:2]
        return "[[B]]" if "three" in (first, second) and "one" in (first, second) else "[[A]]"

    ran = context(reply=reply)
    pairs, more = Elo(EloConfig(By.pair)).decided(met, ran, ran)
    assert len(ran.requests) == 6
    assert [pair.preference for pair in pairs] == [0.5, 0.5, 0.5, 0.5, 0.5], "always the same side is a tie"
    assert [(m.metric, m.value, m.n) for m in more] == [("elo_parse_rate", 1.0, 6), ("elo_orders_agree", 0.0, 3)]


def test_nothing_is_asked_where_nothing_differs(met, context) -> None:
    ran = context()
    pairs, [parsed] = Elo(EloConfig(By.judge)).decided(met[-1:], ran, ran)
    assert (pairs[0].preference, ran.judged, parsed.value, parsed.n) == (0.5, 0, None, 0)
