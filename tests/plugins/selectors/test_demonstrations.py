"""The best answers as demonstrations."""

import pytest

from selfreward import Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.plugins.selectors.demonstrations import Demonstrations, DemonstrationsConfig
from selfreward.testing import check_selector


@pytest.mark.parametrize("top", [1, 3])
def test_it_keeps_the_contract_of_selectors(top):
    rows = check_selector(Demonstrations(DemonstrationsConfig(top)))
    assert rows


@pytest.mark.parametrize(
    ("top", "expected"), [(1, ["second"]), (2, ["second", "first"]), (9, ["second", "first", "third"])]
)
def test_the_top_ranked_human_answers_are_taken(top, expected):
    prompt = Prompt.of("Describe a fox.", source="ift")
    ranks = {"first": 1, "second": 0, "nobody ranked this": None, "third": 2}
    answers = [
        Candidate.of(prompt, text, k, origin="human", model="human", rank=rank, finish_reason="human")
        for k, (text, rank) in enumerate(ranks.items())
    ]
    scores = [None if rank is None else -float(rank) for rank in ranks.values()]
    judgements = [
        Judgement(answer.candidate_id, "human_rank", "-", "-", [score], score, [""])
        for answer, score in zip(answers, scores, strict=True)
    ]
    rows = list(Demonstrations(DemonstrationsConfig(top)).select(JudgedPrompt(prompt, answers, judgements)))
    assert [row.completion[0]["content"] for row in rows] == expected
    assert all(row.prompt == prompt.messages for row in rows)
