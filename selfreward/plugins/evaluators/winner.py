"""Whose answer to a held-out prompt is the better one, as told

- ``by=truth``: by the data's true score;
- ``by=judge``: by the scores a judge gives to each of them alone, with the run's judge and its rubric;
- ``by=pair``: by a judge that sees both, in both orders, a disagreement being a tie, as GPT-4 did for the paper.

The judge is the model that is measured, unless ``judge_model`` names another: a model's opinion of its own answers is
no more than that. The same text twice is a tie, whatever a judge that samples would say of it the second time.
Source: arXiv:2401.10020 §3.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

from selfreward import (
    AnsweredPrompt,
    EvaluationContext,
    Evaluator,
    FileContext,
    Message,
    Metric,
    Sampling,
    option,
    role,
)
from selfreward.plugins.evaluators.compare_pairs import Figures, Pair, in_both_orders, rubric_problems

Met = tuple[AnsweredPrompt, AnsweredPrompt]
"""One prompt, answered by one model and by another."""


class By(Enum):
    """What decides which of two answers is the better one."""

    auto = "auto"
    truth = "truth"
    judge = "judge"
    pair = "pair"


@dataclass
class WinnerConfig:
    """How it is decided whose answer is better."""

    by: By = By.auto
    """truth: the data's true score; judge: a judge's scores of both; pair: a judge that sees both, in both orders;
    auto: judge where judge_model is named or the data has no truth, else truth."""
    judge_model: str | None = role(None, "judge")
    """Who judges: None = this model itself, judge = the loop's judge, a role, or the path of a model folder."""
    rubric: str = "pairwise"
    """What by=pair asks: a rubric that compares two answers, by name, .yaml file or FILE.jsonl:NAME."""
    temperature: float = option(0.0, ge=0)
    """Sampling temperature of by=pair's verdicts; 0 is greedy."""
    max_new_tokens: int = option(1024, ge=1)
    """Tokens a verdict of by=pair may have."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.by is By.truth and self.judge_model is not None:
            return [f"judge_model={self.judge_model} judges nothing with by=truth: set by=judge or by=pair"]
        return []


class WinnerEvaluator(Evaluator):
    """An evaluator of models whose answers meet."""

    name: ClassVar[str]
    config: WinnerConfig

    def files(self, context: FileContext) -> list[Path]:
        return [context.rubric_path(self.config.rubric)] if self.config.by is By.pair else []

    def problems(self, context: FileContext) -> list[str]:
        """``by=truth`` wants data that has a truth, ``by=pair`` a rubric that compares."""
        if self.config.by is By.truth and not context.data.has_truth:
            return [f"{self.name}: by=truth, but this data has no ground truth; use by=judge, by=pair or by=auto"]
        if self.config.by is By.pair:
            return rubric_problems(self.name, context.rubric(self.config.rubric))
        return []

    def decided(
        self, met: Sequence[Met], judge: EvaluationContext, context: EvaluationContext
    ) -> tuple[list[Pair], list[Metric]]:
        """The pairs with what each side got, and how well the verdicts could be read.

        A pair in which a verdict is missing has no preference, and is counted as ``unscored_pairs``.
        """
        how = {By.pair: self._by_pair, By.judge: self._by_judge, By.truth: self._by_truth}.get(self.config.by)
        judged = self.config.judge_model is not None or not context.data.has_truth
        how = how or (self._by_judge if judged else self._by_truth)
        pairs, more = how(met, judge, context)
        context.count(unscored_pairs=sum(pair.preference is None for pair in pairs))
        return pairs, list(more)

    def _by_truth(
        self, met: Sequence[Met], judge: EvaluationContext, context: EvaluationContext
    ) -> tuple[list[Pair], Sequence[Metric]]:
        def true_scores(groups: Sequence[AnsweredPrompt]) -> Iterator[float | None]:
            for group in groups:
                yield (context.data.truth(group.prompt, text_of(group)) or {}).get("true_score")

        return _by_scores(met, true_scores), []

    def _by_judge(
        self, met: Sequence[Met], judge: EvaluationContext, context: EvaluationContext
    ) -> tuple[list[Pair], Sequence[Metric]]:
        votes: list[float | None] = []

        def scores(groups: Sequence[AnsweredPrompt]) -> Iterator[float | None]:
            for judgement in judge.judge(groups) if groups else ():
                votes.extend(judgement.votes)
                yield judgement.score

        pairs = _by_scores(met, scores)
        return pairs, [self._figures(context).parsed(votes)]

    def _by_pair(
        self, met: Sequence[Met], judge: EvaluationContext, context: EvaluationContext
    ) -> tuple[list[Pair], Sequence[Metric]]:
        rubric, pairs = judge.rubric(self.config.rubric), [_pair(*both) for both in met]
        how = Sampling(self.config.temperature, max_new_tokens=self.config.max_new_tokens)
        compared = in_both_orders(pairs, [rubric] * len(pairs), judge, how)
        figures = self._figures(context)
        more = [figures.parsed([v for c in compared for v in c.verdicts]), figures.orders_agree(compared)]
        return [replace(p, preference=c.preference) for p, c in zip(pairs, compared, strict=True)], more

    def _figures(self, context: EvaluationContext) -> Figures:
        """For figures that other evaluators have as well."""
        return Figures(context.model, self.name, f"{self.name}_")


def text_of(group: AnsweredPrompt) -> str:
    """The answer."""
    return group.candidates[0].text


def _pair(mine: AnsweredPrompt, theirs: AnsweredPrompt) -> Pair:
    return Pair(mine.prompt.prompt_id, _dialogue(mine), _dialogue(theirs))


def _dialogue(group: AnsweredPrompt) -> list[Message]:
    return [*group.prompt.messages, {"role": "assistant", "content": text_of(group)}]


def _by_scores(met: Sequence[Met], scores: Callable[[Sequence[AnsweredPrompt]], Iterator[float | None]]) -> list[Pair]:
    """The pairs, the higher of the two scores winning; an answer that meets several others is scored once."""
    apart = [group for both in met if text_of(both[0]) != text_of(both[1]) for group in both]
    asked = {(group.prompt.prompt_id, text_of(group)): group for group in apart}
    known = dict(zip(asked, scores(list(asked.values())), strict=True))

    def preference(mine: AnsweredPrompt, theirs: AnsweredPrompt) -> float | None:
        if text_of(mine) == text_of(theirs):
            return 0.5
        a, b = (known[group.prompt.prompt_id, text_of(group)] for group in (mine, theirs))
        return None if a is None or b is None else 0.5 if a == b else float(a > b)

    return [replace(_pair(*both), preference=preference(*both)) for both in met]
