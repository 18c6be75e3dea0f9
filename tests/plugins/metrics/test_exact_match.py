"""Exact match, with what does not count."""

import pytest

from selfreward import Prompt
from selfreward.plugins.metrics.exact_match import ExactMatch, ExactMatchConfig

PROMPT = Prompt.of("How much is it?", source="ift")


@pytest.mark.parametrize(
    ("options", "answer", "same"),
    [
        ({}, "The Nile", True),
        ({}, "  The \n Nile ", True),
        ({}, "the nile", False),
        ({}, "The Nile.", False),
        ({"ignore_case": True}, "the nile", True),
        ({"ignore_punctuation": True}, "»The Nile«.", True),
        ({"ignore_case": True}, "42", True),
        ({}, "-42", False),
        ({"ignore_punctuation": True}, "-42", True),
        ({}, "", False),
    ],
)
def test_one_reference_has_to_be_met(options, answer, same):
    assert ExactMatch(ExactMatchConfig(**options))(PROMPT, answer, ["The Nile", "42"]) == float(same)
