"""Best against worst, against a brute-force reading of the paper's rule."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.plugins.selectors.best_worst import BestWorst, BestWorstConfig
from selfreward.testing import check_selector

PROMPT = Prompt.of("Describe a fox.", source="ift")


def judged(*answers):
    """A judged prompt from (text, score) or (text, score, finish_reason)."""
    candidates = [
        Candidate.of(PROMPT, text, k, origin="M1", model="M1", token_ids=[k], finish_reason=(*rest, "stop")[0])
        for k, (text, _, *rest) in enumerate(answers)
    ]
    scores = [score for _, score, *_ in answers]
    return JudgedPrompt(
        PROMPT,
        candidates,
        [Judgement(c.candidate_id, "t", "-", "-", [s], s, [""]) for c, s in zip(candidates, scores, strict=True)],
    )


def pair(*answers, margin=0.0):
    """(chosen, rejected) texts, or None."""
    rows = list(BestWorst(BestWorstConfig(margin)).select(judged(*answers)))
    assert len(rows) <= 1
    return (rows[0].chosen[0]["content"], rows[0].rejected[0]["content"]) if rows else None


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_it_keeps_the_contract_of_selectors(margin):
    rows = check_selector(BestWorst(BestWorstConfig(margin)))
    assert rows
    assert all(row.chosen_score - row.rejected_score > margin for row in rows)


def test_the_pair_is_the_best_and_the_worst_with_everything_that_traces_it():
    group = judged(("b", 3.0), ("worst", 0.5), ("best", 4.5), ("c", 1.0))
    [row] = BestWorst(BestWorstConfig()).select(group)
    assert row.prompt == PROMPT.messages
    assert (row.chosen, row.rejected) == (
        [{"role": "assistant", "content": "best"}],
        [{"role": "assistant", "content": "worst"}],
    )
    assert (row.chosen_score, row.rejected_score) == (4.5, 0.5)
    assert (row.chosen_token_ids, row.rejected_token_ids) == ([2], [1])
    assert (row.chosen_id, row.rejected_id) == (group.candidates[2].candidate_id, group.candidates[1].candidate_id)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        ([("a", 5.0)], None),
        ([("a", 3.0), ("b", 3.0)], None),
        ([("a", 3.0), ("b", None)], None),
        ([("a", None), ("b", None)], None),
        ([("a", 5.0), ("b", 1.0, "length"), ("c", 2.0)], ("a", "c")),
        ([("a", 5.0, "length"), ("b", 4.0), ("c", 2.0)], ("b", "c")),
        ([("a", 5.0), (" \n", 0.0), ("c", 2.0)], ("a", "c")),
        ([("a", 5.0), ("a", 1.0)], None),
        ([("a", 5.0), ("b", 2.0), ("a", 1.0)], ("a", "b")),
        ([("a", 5.0), ("b", 5.0), ("a", 1.0)], None),
        ([("a", 5.0), ("b", 5.0), ("c", 1.0), ("d", 1.0)], ("a", "d")),
    ],
)
def test_who_does_not_compete(answers, expected):
    assert pair(*answers) == expected


@pytest.mark.parametrize(("margin", "expected"), [(0.9, ("a", "b")), (1.0, None), (1.1, None)])
def test_the_margin_must_be_exceeded(margin, expected):
    assert pair(("a", 4.0), ("b", 3.0), margin=margin) == expected


answer = st.tuples(
    st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 5).map(float)), st.sampled_from(["stop", "length"])
)


@given(st.lists(answer, max_size=6), st.sampled_from([0.0, 1.0, 2.5]))
def test_it_agrees_with_every_pair_tried(answers, margin):
    usable = [(text, score) for text, score, finish in answers if score is not None and finish == "stop"]
    top = max((score for _, score in usable), default=0)
    best = next((text for text, score in usable if score == top), None)
    gaps = [top - score for text, score in usable if text != best]
    chosen = pair(*answers, margin=margin)
    assert (chosen is not None) == (max(gaps, default=0) > margin)
    if chosen:
        assert chosen[0] == best
        pairs = itertools.permutations(usable, 2)
        assert any((a[0], b[0]) == chosen and a[1] - b[1] == max(gaps) and a[1] == top for a, b in pairs)
