"""Every usable answer with its score, in the order in which they were sampled."""

from __future__ import annotations

from selfreward import Scored
from selfreward.plugins.selectors.scored import ScoredAnswers, ScoredConfig
from selfreward.testing import check_selector, judged_prompts


def test_it_keeps_the_contract():
    assert check_selector(ScoredAnswers(ScoredConfig()))


def test_all_scored_answers_but_the_empty_and_cut_off_ones():
    selector = ScoredAnswers(ScoredConfig())
    for judged in judged_prompts():
        rows = list(selector.select(judged))
        wanted = [
            (c.candidate_id, j.score, c.token_ids)
            for c, j in zip(judged.candidates, judged.judgements, strict=True)
            if j.score is not None and c.text.strip() and c.finish_reason != "length"
        ]
        assert [(row.candidate_id, row.score, row.token_ids) for row in rows] == wanted
        assert all(type(row) is Scored for row in rows)
