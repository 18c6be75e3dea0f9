"""Closeness to a length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Prompt
from selfreward.core.contracts.options import range_problems
from selfreward.plugins.metrics.length import Length, LengthConfig

PROMPT = Prompt.of("Say it.", source="ift")


@pytest.mark.parametrize(("words", "value"), [(0, 0), (5, 0.5), (10, 1), (20, 0.5), (100, 0.1)])
def test_it_falls_to_both_sides_of_the_target(words, value):
    assert Length(LengthConfig(target=10))(PROMPT, "fox\n " * words, []) == value


@given(st.integers(1, 50), st.integers(0, 200))
def test_only_the_target_itself_is_worth_1(target, words):
    value = Length(LengthConfig(target))(PROMPT, "a " * words, ["of no", "use"])
    assert 0 <= value <= 1
    assert (value == 1) == (words == target)
    assert list(range_problems(LengthConfig(0), "x"))
