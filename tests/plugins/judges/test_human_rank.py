"""The human ranking as a judge."""

from selfreward import AnsweredPrompt, Candidate, JudgedPrompt, Prompt
from selfreward.plugins.judges.human_rank import HumanRank, HumanRankConfig
from selfreward.testing import ScriptedContext, check_judge

PROMPT = Prompt.of("Describe a fox.", source="ift")


def test_it_keeps_the_contract_of_judges():
    check_judge(HumanRank(HumanRankConfig()))


def test_the_top_rank_scores_highest_and_no_rank_has_no_score():
    ranks = [2, 0, None, 1, 0]
    answers = [
        Candidate.of(PROMPT, f"Answer {k}.", k, origin="human", model="human", rank=r) for k, r in enumerate(ranks)
    ]
    made = list(HumanRank(HumanRankConfig()).score([AnsweredPrompt(PROMPT, answers)], ScriptedContext()))
    assert [judgement.score for judgement in made] == [-2.0, 0.0, None, -1.0, 0.0]
    assert [judgement.votes for judgement in made] == [[-2.0], [0.0], [None], [-1.0], [0.0]]
    ranked = JudgedPrompt(PROMPT, answers, made).finished_by_score()
    assert [answer.candidate.rank for answer in ranked] == [0, 0, 1, 2]
