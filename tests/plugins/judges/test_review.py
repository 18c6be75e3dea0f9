"""What a model is asked as a judge, and how a score is written: any text, any form, any range."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import AnsweredPrompt, Asking, Candidate, Prompt, Rubric, UserError
from selfreward.plugins.judges.implicit import Implicit, ImplicitConfig
from selfreward.plugins.judges.length import Length, LengthConfig
from selfreward.plugins.judges.llm_cot import LlmCot, LlmCotConfig
from selfreward.plugins.judges.llm_expected import LlmExpected, LlmExpectedConfig
from selfreward.plugins.judges.pairwise import Pairwise, PairwiseConfig
from selfreward.plugins.judges.review import VerdictForm
from selfreward.plugins.judges.reward_model import RewardModel, RewardModelConfig
from selfreward.testing import RUBRIC, Rows, ScriptedContext, check_judge

FORMS = [
    "Score: {score}",
    "[[{score}]]",
    "Rating: {score}/10",
    "**Score:** {score}",
    "Score:\n{score}",
    "= {score} pts.",
]
RANGES = st.tuples(st.integers(0, 3), st.integers(1, 12)).map(lambda r: (r[0], r[0] + r[1]))


@given(st.sampled_from(FORMS), RANGES, st.text())
def test_a_review_with_words_and_text_of_a_score_reads_as_that_score(form, span, review):
    low, high = span
    rubric = Rubric("a", "a test", "{instruction}{response}", low, 10 if "/10" in form else high, form)
    pieces = VerdictForm.of(rubric)
    before = pieces.after(review)
    assert before.endswith(pieces.words)
    assert not before[-1].isspace()
    assert [*pieces.scores.values()] == [float(n) for n in range(low, int(rubric.high) + 1)]
    for text, number in pieces.scores.items():
        assert rubric.read(before + text) == number
        assert pieces.read(text) == pieces.read(text.strip()) == number
        assert pieces.most_tokens > len(text.encode())
    assert pieces.read(review) is None or review.strip() in [text.strip() for text in pieces.texts]


@given(st.sampled_from(FORMS), RANGES)
def test_the_end_counts_exactly_where_one_scores_text_begins_another(form, span):
    pieces = VerdictForm.of(Rubric("a", "a test", "{instruction}{response}", *span, form))
    closed = not form.endswith("{score}")
    assert pieces.is_open == (not closed and span[0] <= 1 and span[1] >= 10)


@given(st.text(), st.sampled_from(["Score: {score}", "[[{score}]]"]))
def test_a_review_is_kept_but_for_marks_opened_for_the_verdict(review, form):
    pieces = VerdictForm.of(dataclasses.replace(RUBRIC, verdict=form))
    kept = pieces.after(review).removesuffix(pieces.words)
    assert review.startswith(kept.removesuffix("\n"))
    assert set(review[len(kept.removesuffix("\n")) :]) <= set("*_`\n")
    assert kept == "" or kept[-1].isspace()


# -------------------------------------------------------------------------------------- what there is to be asked about

FOX = Prompt.of("Describe a fox.", source="ift")
TALK = Prompt.of([{"role": r, "content": r} for r in ("user", "assistant", "user")], source="ift")
JUDGES = [LlmCot(LlmCotConfig(votes=1)), LlmExpected(LlmExpectedConfig(thoughts=1))]
GUIDED = Rubric("guided", "a test", "{instruction}|{reference}|{response}", 0, 5)
TWO_TURNS = Rubric("two", "a test", "{instruction_1}|{response_1}|{instruction_2}|{response_2}", 0, 5)
PAIR = Rubric("duel", "a test", "{instruction}{response_a}{response_b}", verdict="[[{winner}]]")


def human(text, rank, prompt=FOX, k=0):
    return Candidate.of(prompt, text, k, origin="human", model="human", rank=rank, finish_reason="human")


def written(text, prompt=FOX, k=0):
    return Candidate.of(prompt, text, k, origin="M1", model="M1")


def context(rubric, **splits):
    return ScriptedContext(reply=lambda request, k: "Score: 3", declared_rubric=rubric, data=Rows(**splits))


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_the_reference_is_the_answer_that_people_ranked_top(judge):
    known = [AnsweredPrompt(FOX, [human("bad", 2), human("good", 0, k=1), human("unranked", None, k=2)])]
    ran = context(GUIDED, ift=known)
    made = list(judge.score([AnsweredPrompt(FOX, [written("red")]), AnsweredPrompt(TALK, [written("x", TALK)])], ran))
    assert [request.messages[-1]["content"] for request in ran.requests] == ["Describe a fox.|good|red"]
    assert made[0].score is not None
    assert (made[1].score, made[1].votes) == (None, [None])
    assert made[1].rationales == ["(not asked: rubric guided wants a reference answer, and this prompt has none)"]
    assert ran.counters["unasked"] == 1
    check_judge(judge, [AnsweredPrompt(FOX, [written("red")])], ran.fresh())


@pytest.mark.parametrize("split", ["ift", "evaluation"])
def test_no_answer_is_compared_with_itself(split):
    ranked = AnsweredPrompt(FOX, [human("good", 0), human("bad", 1, k=1)])
    ran = context(GUIDED, **{split: [ranked]})
    assert {judgement.score for judgement in JUDGES[0].score([ranked], ran)} == {None}
    assert ran.requests == []
    [alike] = JUDGES[0].score([AnsweredPrompt(FOX, [written("good")])], ran)
    assert alike.score == 3.0, "a model may well have found the reference"


def test_answers_of_held_out_rankings_are_no_references():
    ran = context(GUIDED, judge_evaluation=[AnsweredPrompt(FOX, [human("good", 0)])])
    [judgement] = JUDGES[0].score([AnsweredPrompt(FOX, [written("red")])], ran)
    assert judgement.score is None


def test_a_rubric_of_two_turns_is_asked_about_two_turns_alone():
    ran = context(TWO_TURNS)
    made = list(JUDGES[0].score([AnsweredPrompt(FOX, [written("a")]), AnsweredPrompt(TALK, [written("b", TALK)])], ran))
    assert [judgement.score for judgement in made] == [None, 3.0]
    assert [request.messages[-1]["content"] for request in ran.requests] == ["user|assistant|user|b"]
    assert "is for conversations of 2 user turns" in made[0].rationales[0]


def test_a_system_turn_goes_first():
    ran = context(dataclasses.replace(RUBRIC, system="Be fair."))
    [_] = JUDGES[0].score([AnsweredPrompt(FOX, [written("a")])], ran)
    assert ran.requests[0].messages[0] == {"role": "system", "content": "Be fair."}


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_a_rubric_that_does_not_fit_is_refused_before_any_work(judge):
    said = f"judge={judge.name} scores one answer, and rubric duel compares two answers: use judge=pairwise, or another"
    [problem] = judge.problems(context(PAIR))
    assert problem.startswith(said)
    with pytest.raises(UserError, match=said):
        list(judge.score([AnsweredPrompt(FOX, [written("a")])], context(PAIR)))
    answered = [AnsweredPrompt(FOX, [human("good", 0)])]
    assert judge.problems(context(GUIDED, ift=answered)) == []
    assert judge.problems(context(GUIDED)) == [], "nobody knows which prompts will come"
    [problem] = judge.problems(context(GUIDED, ift=[AnsweredPrompt(FOX, [])]))
    assert "rubric guided wants a reference answer" in problem
    [problem] = judge.problems(context(TWO_TURNS, ift=answered))
    assert "is for conversations of 2 user turns" in problem
    assert judge.problems(context(TWO_TURNS, ift=[*answered, AnsweredPrompt(TALK, [])])) == []


def test_a_judge_says_how_it_asks_a_model():
    assert LlmCot(LlmCotConfig(votes=5, max_new_tokens=9)).asks() == Asking(None, 5, 9)
    assert LlmExpected(LlmExpectedConfig(thoughts=0, rubric="scalar")).asks() == Asking("scalar", 0, 256)
    assert Pairwise(PairwiseConfig(comparisons=3)).asks() == Asking("pairwise", 3, 512)
    numbers = RewardModel(RewardModelConfig()), Implicit(ImplicitConfig())
    assert [judge.asks() for judge in (*numbers, Length(LengthConfig()))] == [None, None, None]
    assert [judge.writes_verdicts for judge in (*numbers, LlmCot(LlmCotConfig()))] == [False, False, True]
    assert numbers[1].models() == ("policy", "base")
