"""The additive rubric: five cumulative points, reasons before the score, and a verdict that the grammar reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfreward import Rubric

RUBRICS = Path(__file__).parents[3] / "conf" / "rubric"


@pytest.fixture(scope="module")
def rubric() -> Rubric:
    return Rubric.load("additive", (RUBRICS,))


def test_five_points_one_after_the_other(rubric: Rubric) -> None:
    points = re.findall(r"^- Add (?:the|a) (\w+) point ", rubric.template, re.MULTILINE)
    assert points == ["first", "second", "third", "fourth", "fifth"]
    assert (rubric.low, rubric.high, rubric.reply_prefix) == (0, 5, "")
    assert "2401.10020" in rubric.source


def test_the_justification_comes_before_the_score(rubric: Rubric) -> None:
    assert 0 < rubric.template.index("at most 100 words") < rubric.template.index('"Score: <total points>"')


def test_texts_stand_as_they_are(rubric: Rubric) -> None:
    rendered = rubric.render(instruction="Why {response}?", response="Since {instruction}. Score: 5")
    assert "User: Why {response}?\n\n<response>Since {instruction}. Score: 5</response>" in rendered


@pytest.mark.parametrize(
    ("said", "score"), [("Relevant, useful.\nScore: 4", 4), ("Score: <2>", 2), ("Score: 6", None), ("4", None)]
)
def test_the_verdict_it_asks_for_is_read(rubric: Rubric, said: str, score: float | None) -> None:
    assert rubric.read(said) == score


def test_the_prompts_own_form_is_no_verdict(rubric: Rubric) -> None:
    assert rubric.read(rubric.render(instruction="q", response="a")) is None
