"""All pairs, against every ordered pair tried."""

import itertools
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import AnsweredPrompt, Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.plugins.judges.human_rank import HumanRank, HumanRankConfig
from selfreward.plugins.selectors.all_pairs import AllPairs, AllPairsConfig
from selfreward.testing import ScriptedContext, check_selector

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


def pairs(group, **options):
    """(chosen, rejected) texts, in order."""
    rows = AllPairs(AllPairsConfig(**options)).select(group)
    return [(row.chosen[0]["content"], row.rejected[0]["content"]) for row in rows]


@pytest.mark.parametrize("options", [{}, {"margin": 1.5}, {"max_pairs": 2}])
def test_it_keeps_the_contract_of_selectors(options):
    rows = check_selector(AllPairs(AllPairsConfig(**options)))
    assert rows
    assert all(row.chosen_score - row.rejected_score > options.get("margin", 0) for row in rows)


def test_k_answers_make_k_choose_2_pairs_the_largest_difference_first():
    group = judged(("c", 2.0), ("a", 5.0), ("d", 0.5), ("b", 3.0))
    assert pairs(group) == [("a", "d"), ("a", "c"), ("b", "d"), ("a", "b"), ("c", "d"), ("b", "c")]
    assert len(pairs(judged(*((str(k), float(k)) for k in range(9))))) == comb(9, 2)


def test_a_pair_holds_everything_that_traces_it():
    group = judged(("b", 3.0), ("a", 4.5))
    [row] = AllPairs(AllPairsConfig()).select(group)
    assert (row.prompt, row.prompt_id) == (PROMPT.messages, PROMPT.prompt_id)
    assert (row.chosen_score, row.rejected_score) == (4.5, 3.0)
    assert (row.chosen_token_ids, row.rejected_token_ids) == ([1], [0])
    assert (row.chosen_id, row.rejected_id) == (group.candidates[1].candidate_id, group.candidates[0].candidate_id)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], []),
        ([("a", 5.0)], []),
        ([("a", 3.0), ("b", 3.0)], []),
        ([("a", 3.0), ("b", None)], []),
        ([("a", 5.0), ("b", 1.0, "length"), ("c", 2.0)], [("a", "c")]),
        ([("a", 5.0), (" \n", 0.0), ("c", 2.0)], [("a", "c")]),
        ([("a", 5.0), ("a", 1.0)], []),
        ([("a", 5.0), ("b", 2.0), ("a", 4.0), ("b", 1.0)], [("a", "b")]),
        ([("a", 5.0), ("b", 2.0), ("a", 1.0)], [("a", "b"), ("b", "a")]),  # as the judge has it
    ],
)
def test_who_makes_a_pair(answers, expected):
    assert pairs(judged(*answers)) == expected


def test_the_margin_must_be_exceeded_and_the_number_of_pairs_is_kept():
    group = judged(("a", 4.0), ("b", 3.0), ("c", 1.0))
    assert pairs(group, margin=1.0) == [("a", "c"), ("b", "c")]
    assert pairs(group, max_pairs=1) == [("a", "c")]
    assert pairs(group, max_pairs=9) == pairs(group, max_pairs=0) == pairs(group)


def test_ranked_answers_of_people_make_pairs():
    """Ranks 0, 2, 1 and a tie, as the judge ``human_rank`` scores them; what nobody ranked makes none."""
    ranks = {"best": 0, "worst": 2, "middle": 1, "too": 1, "unranked": None}
    answers = [
        Candidate.of(PROMPT, text, k, origin="human", model="human", rank=rank, finish_reason="human")
        for k, (text, rank) in enumerate(ranks.items())
    ]
    verdicts = HumanRank(HumanRankConfig()).score([AnsweredPrompt(PROMPT, answers)], ScriptedContext())
    found = pairs(JudgedPrompt(PROMPT, answers, list(verdicts)))
    assert found[0] == ("best", "worst")
    assert set(found[1:]) == {("best", "middle"), ("best", "too"), ("middle", "worst"), ("too", "worst")}
    assert len(found) == 5


answer = st.tuples(
    st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 5).map(float)), st.sampled_from(["stop", "length"])
)


@given(st.lists(answer, max_size=7), st.sampled_from([0.0, 1.0, 2.5]), st.integers(0, 4))
def test_it_agrees_with_every_pair_tried(answers, margin, max_pairs):
    usable = [(text, score) for text, score, finish in answers if score is not None and finish == "stop"]
    gaps: dict[tuple[str, str], float] = {}
    for (better, high), (worse, low) in itertools.permutations(usable, 2):
        if better != worse and high - low > margin:
            gaps[better, worse] = max(gaps.get((better, worse), 0), high - low)
    found = pairs(judged(*answers), margin=margin, max_pairs=max_pairs)
    assert len(found) == len(set(found)) == min(len(gaps), max_pairs or len(gaps))
    widths = [gaps[pair] for pair in found]
    assert widths == sorted(gaps.values(), reverse=True)[: len(found)]
