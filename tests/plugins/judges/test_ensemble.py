"""Several judges: shares of each one's range, put together, and what is left of them when one has nothing to say."""

import dataclasses
import math
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import AnsweredPrompt, Candidate, Judge, Judgement, Prompt, Rubric
from selfreward.core.contracts.options import range_problems
from selfreward.plugins.judges.ensemble import Aggregate, Ensemble, EnsembleConfig, share
from selfreward.plugins.judges.length import Length, LengthConfig
from selfreward.plugins.judges.llm_cot import LlmCot, LlmCotConfig
from selfreward.plugins.judges.pairwise import Pairwise, PairwiseConfig
from selfreward.testing import Rows, ScriptedContext, answered_prompts, check_judge

PROMPT = Prompt.of("Describe a fox.", source="ift")
GROUP = AnsweredPrompt(PROMPT, [Candidate.of(PROMPT, text, k, origin="M1", model="M1") for k, text in enumerate("ab")])


@dataclasses.dataclass
class Fixed:
    """Options of a judge that says what it is told to."""

    scores: list


class Says(Judge):
    """Gives its scores in turn."""

    def score(self, answered, context):
        """One judgement per candidate."""
        for candidate, score in zip(answered[0].candidates, self.config.scores, strict=True):
            yield Judgement(candidate.candidate_id, "says", "-", "-", [score], score, ["because"])


def together(*scores, aggregate=Aggregate.mean, quorum=1, span=(0, 10)):
    """The judgements of two answers by members that say these (first, second)."""
    names = [f"m{k}" for k in range(len(scores))]
    config = EnsembleConfig(names, aggregate, quorum, {name: list(span) for name in names})
    members = {name: Says(Fixed(list(said))) for name, said in zip(names, scores, strict=True)}
    return list(Ensemble(config, members).score([GROUP], ScriptedContext()))


def mixed(**options):
    """Three judges of different kinds: reviews, comparisons, and the control that counts characters."""
    options = {"ranges": {"length": [0, 100]}, **options}
    members = {
        "strict": LlmCot(LlmCotConfig(votes=2)),
        "duels": Pairwise(PairwiseConfig(rubric="pairwise")),
        "length": Length(LengthConfig()),
    }
    return Ensemble(EnsembleConfig(list(members), **options), members)


# ----------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(("aggregate", "score"), [(Aggregate.mean, 0.4), (Aggregate.median, 0.3), (Aggregate.min, 0.1)])
def test_members_are_put_together(aggregate, score):
    first, second = together((1, 9), (3, 9), (8, 9), aggregate=aggregate)
    assert first.score == pytest.approx(score)
    assert first.votes == pytest.approx([0.1, 0.3, 0.8])
    assert second.score == pytest.approx(0.9)
    assert first.rationales == ["[m0: 1]\n\nbecause", "[m1: 3]\n\nbecause", "[m2: 8]\n\nbecause"]
    assert (first.judge, first.rubric, first.model) == ("ensemble", "-", "M1")


@pytest.mark.parametrize(("quorum", "scores"), [(1, [0.2, None]), (2, [0.2, None]), (3, [None, None])])
def test_who_has_no_score_is_left_out_and_too_few_are_none(quorum, scores):
    made = together((1, None), (None, None), (3, None), quorum=quorum)
    assert [judgement.score for judgement in made] == scores
    assert made[0].votes == pytest.approx([0.1, None, 0.3]), "what the members said stays to be seen"
    assert made[0].rationales[1].startswith("[m1: no score]")


@given(st.lists(st.tuples(*[st.none() | st.floats(-5, 25)] * 2), min_size=1, max_size=5), st.sampled_from(Aggregate))
def test_the_score_is_that_of_the_shares_that_are_there(said, aggregate):
    made = together(*said, aggregate=aggregate, span=(0, 20))
    by_hand = {Aggregate.mean: fmean, Aggregate.median: median, Aggregate.min: min}[aggregate]
    for place, judgement in enumerate(made):
        shares = [min(1, max(0, row[place] / 20)) for row in said if row[place] is not None]
        assert judgement.score == (pytest.approx(by_hand(shares)) if shares else None)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_a_share_lies_between_0_and_1_and_keeps_the_order(score, low, width):
    assert 0 <= share(score, low, low + width) <= 1
    assert share(score, low, low + width) <= share(score + 1, low, low + width)
    assert share(low, low, low + width) == 0
    assert math.isclose(share(low + width, low, low + width), 1)


# -------------------------------------------------------------------------------------------------------------- members


@pytest.mark.parametrize("aggregate", Aggregate)
def test_it_keeps_the_contract_of_judges(aggregate):
    members = {"one": LlmCot(LlmCotConfig(votes=2)), "other": Pairwise(PairwiseConfig())}
    made = check_judge(Ensemble(EnsembleConfig(list(members), aggregate), members))
    assert {judgement.rubric for judgement in made} == {"testing+pairwise"}
    assert all(judgement.score is None or 0 <= judgement.score <= 1 for judgement in made)


def test_each_members_range_is_that_of_its_rubric(tmp_path):
    ten = tmp_path / "ten.yaml"
    ten.write_text(
        "name: ten\nsource: a test\nlow: 1\nhigh: 10\ntemplate: '{instruction}{response}'\nverdict: '[[{score}]]'\n"
    )
    members = {
        "five": LlmCot(LlmCotConfig(votes=1)),
        "ten": LlmCot(LlmCotConfig(votes=1, rubric=str(ten))),
        "length": Length(LengthConfig()),
    }
    ran = ScriptedContext(reply=lambda request, k: "Score: 4 or, of ten, [[4]]\nScore: 4")
    config = EnsembleConfig(list(members), ranges={"length": [0, 2]})
    for judgement in Ensemble(config, members).score([GROUP], ran):
        assert judgement.votes == pytest.approx([4 / 5, 3 / 9, 1 / 2])
        assert judgement.rubric == "testing+ten"


def test_members_with_the_same_rubric_do_not_draw_alike():
    members = {name: LlmCot(LlmCotConfig(votes=1)) for name in ("one", "other")}
    ran = ScriptedContext()
    made = list(Ensemble(EnsembleConfig(list(members)), members).score(answered_prompts(), ran))
    assert len({request.seed for request in ran.requests}) == 2 * len(made)
    assert any(judgement.votes[0] != judgement.votes[1] for judgement in made)


def test_files_and_counters_are_the_members():
    ran = ScriptedContext(reply=lambda request, k: "[[C]] Score: 2")
    ensemble = mixed()
    assert [path.name for path in ensemble.files(ran)][1:] == ["pairwise.yaml"]
    made = list(ensemble.score([GROUP], ran))
    assert ran.counters == {"duels.comparisons": 1, "duels.comparisons_left_out": 0, "duels.comparisons_by_order": 0}
    assert made[0].votes == pytest.approx([2 / 5, 1 / 2, 1 / 100])


# ------------------------------------------------------------------------------------------------------ what is refused


def problems(ensemble, **context):
    return ensemble.problems(ScriptedContext(data=Rows(), **context))


def test_what_cannot_work_is_said_before_any_work():
    assert problems(mixed()) == []
    assert "two members or more" in problems(Ensemble(EnsembleConfig()))[0]
    assert problems(mixed(quorum=4)) == ["judge.quorum=4 is more than the 3 members"]
    [problem] = problems(mixed(ranges={}))
    assert problem.endswith("judge.members.length has no rubric that tells its range: give judge.ranges.length=[0,500]")
    other = Rubric("duel", "a test", "{instruction}{response_a}{response_b}", verdict="[[{winner}]]")
    [problem] = problems(mixed(), declared_rubric=other)
    assert problem.startswith("judge.members.strict: judge=llm_cot scores one answer")


def test_all_members_run_one_model():
    members = {"one": LlmCot(LlmCotConfig(model="M1")), "other": LlmCot(LlmCotConfig())}
    said = "judge.members.one.model=M1: all members run judge.model=policy"
    assert problems(Ensemble(EnsembleConfig(list(members)), members)) == [said]
    assert problems(Ensemble(EnsembleConfig(list(members), model="M1"), members)) == []


def test_ranges_belong_to_members_and_have_two_ends():
    assert EnsembleConfig(["length"], ranges={"length": [0.0, 500.0]}).problems() == []
    assert EnsembleConfig({"length": {}}, ranges={"length": [-3.0, 0.0]}).problems() == []
    for span in ([1.0], [1.0, 1.0], [2.0, 1.0], [0.0, math.inf], [math.nan, 1.0]):
        [problem] = EnsembleConfig(["length"], ranges={"length": span}).problems()
        assert "give the lowest and the highest score" in problem
    assert EnsembleConfig(["a", "b"], ranges={"c": [0.0, 1.0]}).problems() == [
        "ranges.c: no member has this name (a, b)"
    ]
    assert list(range_problems(EnsembleConfig(quorum=0), "judge"))
