"""Head to head: how often a model's answer beats the previous model's answer to the same prompt.

A pair is a win, a tie or a loss by the ground truth where the data has one. Where it has none, this model judges both
answers with the run's judge, as it would in the loop; that is the model's own opinion, and no more than that.
Each share comes with Wilson's 95 % interval. The table it fills is that of arXiv:2401.10020 §3.3, where GPT-4 compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from selfreward import AnsweredPrompt, EvaluationContext, Evaluator, FileContext, Metric
from selfreward.plugins.evaluators.intervals import share_interval


class By(Enum):
    """What decides which of two answers is the better one."""

    auto = "auto"
    truth = "truth"
    judge = "judge"


@dataclass
class HeadToHeadConfig:
    """How answers are compared."""

    by: By = By.auto
    """truth: the data's true score; judge: this model's own scores of both; auto: truth where the data has one."""


class HeadToHead(Evaluator):
    """Shares of wins, ties and losses against the previous model; nothing for the first one."""

    config: HeadToHeadConfig

    def problems(self, context: FileContext) -> list[str]:
        """``by=truth`` wants data that has a truth."""
        if self.config.by is By.truth and not context.data.has_truth:
            return ["head_to_head: by=truth, but this data has no ground truth; use by=judge or by=auto"]
        return []

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """The three shares. A pair in which an answer has no score is left out, and counted as ``unscored_pairs``."""
        if context.previous is None:
            return
        theirs = {group.prompt.prompt_id: group for group in context.previous[1]}
        pairs = [(mine, theirs[mine.prompt.prompt_id]) for mine in context.answers if mine.prompt.prompt_id in theirs]
        scores = self._scores([answer for pair in pairs for answer in pair], context)
        scored = [(a, b) for a, b in zip(scores[::2], scores[1::2], strict=True) if a is not None and b is not None]
        context.count(unscored_pairs=len(pairs) - len(scored))
        n = len(scored)
        outcomes = {
            "win": sum(a > b for a, b in scored),
            "tie": sum(a == b for a, b in scored),
            "lose": sum(a < b for a, b in scored),
        }
        for name, count in outcomes.items():
            low, high = share_interval(count, n) if n else (None, None)
            yield Metric(context.model, "head_to_head", name, count / n if n else None, low, high, n)

    def _scores(self, answered: Sequence[AnsweredPrompt], context: EvaluationContext) -> list[float | None]:
        """The score of each prompt's one answer, or None."""
        if self.config.by is By.judge or not context.data.has_truth:
            return [judgement.score for judgement in context.judge(answered)] if answered else []
        truths = [context.data.truth(group.prompt, group.candidates[0].text) or {} for group in answered]
        return [truth.get("true_score") for truth in truths]
