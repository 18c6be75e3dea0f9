"""Answers that are too short or too long."""

import pytest

from selfreward import Candidate, Prompt
from selfreward.plugins.candidate_filters.length import Length, LengthConfig
from selfreward.testing import answered_prompts, check_filter


def reason(text, **options):
    candidate = Candidate.of(Prompt.of("Describe a fox.", source="ift"), text, 0, origin="M1", model="M1")
    return Length(LengthConfig(**options)).reason(candidate)


def test_it_keeps_the_contract_of_filters_and_drops_empty_answers_by_default():
    answers = [candidate for group in answered_prompts() for candidate in group.candidates]
    reasons = check_filter(Length(LengthConfig()), answers)
    assert reasons == ["too short" if not answer.text else None for answer in answers]
    assert "too short" in reasons


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \n ", "too short"),
        ("ab", "too short"),
        (" ab ", "too short"),
        ("abc", None),
        ("abcde", None),
        ("abcdef", "too long"),
    ],
)
def test_white_space_around_an_answer_does_not_count(text, expected):
    assert reason(text, min_chars=3, max_chars=5) == expected


def test_without_a_limit_nothing_is_too_long():
    assert reason("a" * 100_000) is None
    assert reason("", min_chars=0) is None
    assert LengthConfig().problems() == []
    assert "max_chars=2" in LengthConfig(min_chars=3, max_chars=2).problems()[0]
