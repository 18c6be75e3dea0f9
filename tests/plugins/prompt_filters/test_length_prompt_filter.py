"""Prompts that are too short or too long."""

import pytest

from selfreward import Prompt
from selfreward.plugins.prompt_filters.length import Length, LengthConfig
from selfreward.testing import check_filter, prompts


def reason(text, **options):
    [found] = check_filter(Length(LengthConfig(**options)), [Prompt.of(text, source="M1")])
    return found


def test_it_keeps_the_contract_of_filters():
    assert set(check_filter(Length(LengthConfig(min_words=7, max_words=9)), prompts())) == {
        None,
        "too short",
        "too long",
    }


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "too short"), (3, "too short"), (4, None), (150, None), (151, "too long")],
)
def test_the_limits_are_those_of_self_instruct_and_belong_to_what_is_kept(count, expected):
    assert reason(" \n".join(["word"] * count)) == expected


def test_limits_are_options():
    assert reason("one two", min_words=2, max_words=2) is None
    assert reason("one two three", min_words=2, max_words=2) == "too long"
    assert LengthConfig().problems() == []
    assert "min_words=5" in LengthConfig(min_words=5, max_words=4).problems()[0]
