"""Pairs that would teach length."""

import pytest

from selfreward import Candidate, Demonstration, Preference, Prompt, ScoredCandidate, UserError
from selfreward.plugins.pair_filters.length_ratio import LengthRatio, LengthRatioConfig
from selfreward.testing import check_filter

PROMPT = Prompt.of("Describe a fox.", source="ift")


def answer(length, score):
    return ScoredCandidate(Candidate.of(PROMPT, "a" * length, length, origin="M1", model="M1"), score)


def pair(chosen, rejected):
    return Preference.of(PROMPT, answer(chosen, 5.0), answer(rejected, 1.0))


def test_it_keeps_the_contract_of_filters():
    rows = [pair(10, 10), pair(20, 10), pair(21, 10), pair(10, 100)]
    assert check_filter(LengthRatio(LengthRatioConfig()), rows) == [None, None, "much longer", None]


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, "much longer"), (1.0, "much longer"), (1.5, None)])
def test_the_ratio_is_an_option(ratio, expected):
    assert LengthRatio(LengthRatioConfig(ratio)).reason(pair(15, 10)) == expected


def test_rows_that_are_no_pairs_are_refused_with_the_mend():
    with pytest.raises(UserError, match=r"Demonstration.*selector=best_worst"):
        LengthRatio(LengthRatioConfig()).reason(Demonstration.of(PROMPT, answer(3, 1.0)))
