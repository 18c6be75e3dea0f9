"""Any metric as the judge: what is added up, what it is compared with, and what nobody can tell."""

import dataclasses
import math

import pytest

from selfreward import AnsweredPrompt, Candidate, Prompt, StageError, TextMetric
from selfreward.core.cli import run_config
from selfreward.plugins.judges.metric import MetricConfig, MetricJudge
from selfreward.plugins.metrics.bleu import Bleu, BleuConfig
from selfreward.plugins.metrics.length import Length, LengthConfig
from selfreward.plugins.metrics.rouge import RougeConfig, RougeL
from selfreward.testing import Rows, ScriptedContext, check_judge, prompts

FOX = Prompt.of("Describe a fox.", source="ift")
HEN = Prompt.of("Describe a hen.", source="ift")
TALK = Prompt.of(
    [{"role": r, "content": r} for r in ("user", "assistant")] + [{"role": "user", "content": "Describe a fox."}], "ift"
)


def human(text, rank, k=0, prompt=FOX):
    return Candidate.of(prompt, text, k, origin="human", model="human", rank=rank, finish_reason="human")


def answered(*texts, prompt=FOX):
    return AnsweredPrompt(
        prompt, [Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(texts)]
    )


KNOWN = [
    AnsweredPrompt(
        FOX, [human("bad", 1), human("a red fox", 0, 1), human("the fox", 0, 2), human("unranked", None, 3)]
    ),
    AnsweredPrompt(TALK, [human("the fox again", 0, prompt=TALK)]),
]


@dataclasses.dataclass
class Options:
    """Options of a metric that says what it is told to."""

    value: float | None = 2.0


class Says(TextMetric):
    """Remembers what it was asked."""

    def __init__(self, config):
        super().__init__(config)
        self.asked = []

    def __call__(self, prompt, answer, references):
        """The value."""
        self.asked.append((prompt, answer, list(references)))
        return self.config.value


class Compares(Says):
    """Wants a reference."""

    needs_references = True


def judge(weights=None, **metrics):
    return MetricJudge(MetricConfig(list(metrics), weights or {}), metrics)


def scored(made, *groups, **splits):
    ran = ScriptedContext(data=Rows(**(splits or {"ift": KNOWN})))
    return list(made.score(groups, ran)), ran


# ------------------------------------------------------------------------------------------------------------ the score


def test_the_score_is_the_weighted_sum_and_each_metric_is_told():
    made = judge({"b": -0.5, "c": 0}, a=Says(Options(2.0)), b=Says(Options(3.0)), c=Says(Options(100)))
    [judgement], ran = scored(made, answered("red"))
    assert judgement.score == 2.0 - 1.5
    assert judgement.votes == [judgement.score]
    assert judgement.rationales == ["a: 2\nb: 3\nc: 100"]
    assert (judgement.judge, judgement.model, judgement.rubric) == ("metric", "-", "-")
    assert not ran.requests


def test_a_real_metric_by_hand():
    [near, far], _ = scored(judge({"short": 0.1}, rouge_l=RougeL(RougeConfig()), short=Length(LengthConfig(4))),
                            answered("A red fox runs.", "no"))  # fmt: skip
    assert near.score == pytest.approx(2 * 3 / (4 + 3) + 0.1)
    assert far.score == pytest.approx(0 + 0.1 / 4)


def test_the_references_are_all_answers_ranked_top_and_the_answer_is_the_last_one():
    one = Compares(Options())
    scored(judge(one=one), answered("x", "y"), answered("z", prompt=TALK))
    assert one.asked == [
        (FOX, "x", ["a red fox", "the fox"]),
        (FOX, "y", ["a red fox", "the fox"]),
        (TALK, "z", ["the fox again"]),
    ]


@pytest.mark.parametrize("split", ["ift", "evaluation"])
def test_no_human_answer_is_compared_with_itself(split):
    one = Compares(Options())
    scored(judge(one=one), KNOWN[0], **{split: KNOWN})
    assert one.asked == []
    scored(judge(one=one), AnsweredPrompt(FOX, KNOWN[0].candidates[:2]), **{split: KNOWN})
    assert [(answer, references) for _, answer, references in one.asked] == [
        ("bad", ["the fox"]),
        ("a red fox", ["the fox"]),
    ]
    one.asked.clear()
    scored(judge(one=one), answered("a red fox"), **{split: KNOWN})
    assert one.asked == [(FOX, "a red fox", ["a red fox", "the fox"])], "a model may well have found the reference"


def test_held_out_rankings_are_no_references():
    [judgement], _ = scored(judge(one=Compares(Options())), answered("x"), judge_evaluation=KNOWN)
    assert judgement.score is None


def test_what_nobody_can_tell_is_none_and_counted():
    both = judge(free=Says(Options(1.0)), one=Compares(Options(1.0)))
    made, ran = scored(both, answered("x"), answered("x", "y", prompt=HEN))
    assert [judgement.score for judgement in made] == [2.0, None, None]
    assert made[1].votes == [None]
    assert made[1].rationales == ["free: 1\none: cannot tell"]
    assert ran.counters == {"no_reference": 2, "unscored": 2}
    silent, ran = scored(judge(one=Compares(Options(None)), free=Says(Options(1.0))), answered("x"))
    assert silent[0].score is None, "half of a sum is no sum"
    assert ran.counters == {"no_reference": 0, "unscored": 1}
    free, ran = scored(judge(free=Says(Options(1.0))), answered("x", prompt=HEN))
    assert (free[0].score, ran.counters["no_reference"]) == (1.0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_gives_no_number_is_named(value):
    with pytest.raises(StageError, match=rf"metric 'wild' gave {value} for an answer to prompt {FOX.prompt_id}"):
        scored(judge(fine=Says(Options(1.0)), wild=Says(Options(value))), answered("x"))


def test_it_keeps_the_contract_of_judges():
    metrics = {"rouge_l": RougeL(RougeConfig()), "bleu": Bleu(BleuConfig()), "length": Length(LengthConfig())}
    known = [AnsweredPrompt(prompt, [human("An answer.", 0, prompt=prompt)]) for prompt in prompts()[:6]]
    made = check_judge(judge({"length": 0.1}, **metrics), context=ScriptedContext(data=Rows(ift=known)))
    assert {judgement.score is None for judgement in made} == {True, False}


# ------------------------------------------------------------------------------------------------------ what is refused


def problems(made, **splits):
    return made.problems(ScriptedContext(data=Rows(**splits)))


def test_what_cannot_work_is_said_before_any_work():
    assert problems(judge(one=Compares(Options())), ift=KNOWN) == []
    assert problems(judge(free=Says(Options()))) == []
    assert problems(MetricJudge(MetricConfig())) == [
        "judge=metric wants a metric or more: judge.metrics=[rouge_l]",
    ]
    [problem] = problems(judge(free=Says(Options()), one=Compares(Options())), ift=[AnsweredPrompt(FOX, [])])
    assert problem.startswith("judge=metric: one compares with human answers, and the data has none; use data that has")


def test_a_metrics_own_problems_and_files_are_the_judges(tmp_path):
    class Reads(Says):
        def files(self, context):
            return [tmp_path / "words.txt"]

        def problems(self, context):
            return ["the list of words is empty"]

    made = judge(free=Says(Options()), one=Reads(Options()))
    assert problems(made) == ["judge.metrics.one: the list of words is empty"]
    assert made.files(ScriptedContext()) == [tmp_path / "words.txt"]


def test_weights_belong_to_metrics():
    assert MetricConfig(["a"], {"a": -1.0}).problems() == MetricConfig({"a": {}}, {"a": 0.0}).problems() == []
    assert MetricConfig(["a", "b"], {"c": 1.0}).problems() == ["weights.c: no metric has this name (a, b)"]
    assert MetricConfig(["a"], {"a": math.inf}).problems() == ["weights.a=inf is no number"]


# ------------------------------------------------------------------------------------------------ from the command line


def test_metrics_are_chosen_by_name_with_options_of_their_own():
    chosen = run_config(["judge=metric", "judge.metrics=[rouge_l,length]", "judge.weights={length: 0.5}"])
    built = chosen.choices["judge"].build()
    assert [type(metric) for metric in built.metrics.values()] == [RougeL, Length]
    assert built.config.weights == {"length": 0.5}
    named = run_config(["judge=metric", "judge.metrics={strict: {name: bleu, max_order: 2}, length: {target: 7}}"])
    built = named.choices["judge"].build()
    assert (built.metrics["strict"].config.max_order, built.metrics["length"].config.target) == (2, 7)
