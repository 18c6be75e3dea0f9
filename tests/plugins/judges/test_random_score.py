"""The control that knows nothing."""

from collections import Counter

import pytest

from selfreward import AnsweredPrompt, Candidate, Prompt, Rubric
from selfreward.plugins.judges.random_score import Random, RandomConfig
from selfreward.testing import ScriptedContext, check_judge

PROMPT = Prompt.of("Describe a fox.", source="ift")
ANSWERS = [Candidate.of(PROMPT, "The same.", k, origin="M1", model="M1") for k in range(3000)]


def scores(**context):
    judged = Random(RandomConfig()).score([AnsweredPrompt(PROMPT, ANSWERS)], ScriptedContext(**context))
    return [judgement.score for judgement in judged]


def test_it_keeps_the_contract_of_judges():
    check_judge(Random(RandomConfig()))


@pytest.mark.parametrize(("low", "high"), [(0, 5), (1, 10), (0.5, 2.5)])
def test_scores_are_uniform_integers_of_the_rubrics_range(low, high):
    from scipy.stats import chisquare

    seen = Counter(scores(declared_rubric=Rubric("wide", "a test", "{instruction}{response}", low, high)))
    assert sorted(seen) == [k for k in range(11) if low <= k <= high]
    assert chisquare(list(seen.values())).pvalue > 1e-4


def test_the_range_is_that_of_the_rubrics_file(tmp_path):
    path = tmp_path / "narrow.yaml"
    path.write_text("name: narrow\nsource: a test\nlow: 7\nhigh: 8\ntemplate: '{instruction}{response}'\n")
    judge = Random(RandomConfig(rubric=str(path)))
    judged = list(judge.score([AnsweredPrompt(PROMPT, ANSWERS[:50])], ScriptedContext()))
    assert {(judgement.score, judgement.rubric) for judgement in judged} == {(7.0, "narrow"), (8.0, "narrow")}
    assert judge.files(ScriptedContext()) == [path]


def test_another_run_seed_gives_other_scores():
    assert scores(run_seed=0) == scores(run_seed=0) != scores(run_seed=1)
