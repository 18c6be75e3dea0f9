"""Positive examples only."""

import pytest

from selfreward import Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.plugins.selectors.positive_only import PositiveOnly, PositiveOnlyConfig
from selfreward.testing import check_selector

PROMPT = Prompt.of("Describe a fox.", source="ift")


def taken(answers, **options):
    candidates = [
        Candidate.of(PROMPT, text, k, origin="M1", model="M1", token_ids=[k], finish_reason=(*rest, "stop")[0])
        for k, (text, _, *rest) in enumerate(answers)
    ]
    judgements = [
        Judgement(candidate.candidate_id, "t", "-", "-", [score], score, [""])
        for candidate, (_, score, *_) in zip(candidates, answers, strict=True)
    ]
    rows = list(PositiveOnly(PositiveOnlyConfig(**options)).select(JudgedPrompt(PROMPT, candidates, judgements)))
    return [(row.completion[0]["content"], row.score, row.token_ids) for row in rows]


@pytest.mark.parametrize("options", [{}, {"threshold": 2.5}, {"threshold": 0.0, "every": True}])
def test_it_keeps_the_contract_of_selectors(options):
    rows = check_selector(PositiveOnly(PositiveOnlyConfig(**options)))
    assert rows
    assert all(row.score >= options.get("threshold", 5.0) for row in rows)


ANSWERS = [("a", 4.0), ("b", 5.0), ("b", 5.0), ("c", 5.0, "length"), ("d", None), ("e", 5.0), ("a", 4.5), ("", 5.0)]


def test_the_first_perfect_answer_of_a_prompt_is_taken():
    assert taken(ANSWERS) == [("b", 5.0, [1])]
    assert taken([("a", 4.9), ("b", None)]) == []
    assert taken([]) == []


def test_every_takes_each_text_once_with_its_best_score_best_first():
    assert taken(ANSWERS, every=True) == [("b", 5.0, [1]), ("e", 5.0, [5])]
    assert taken(ANSWERS, every=True, threshold=4.0) == [("b", 5.0, [1]), ("e", 5.0, [5]), ("a", 4.5, [6])]
