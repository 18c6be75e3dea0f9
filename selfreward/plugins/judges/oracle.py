"""A control that knows the truth: score = the data's ``true_score``, the upper bound of what judging can give.

Nothing that is trained with it is self-rewarding; it shows how much a better judge would be worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, FileContext, Judge, Judgement, StageContext


@dataclass
class OracleConfig:
    """``judge=oracle`` has no options."""


class Oracle(Judge):
    """Asks the data."""

    config: OracleConfig

    def problems(self, context: FileContext) -> list[str]:
        if context.data.has_truth:
            return []
        data = type(context.data).__name__
        return [f"judge=oracle needs data with a ground truth; data={data} has none: use judge=llm_cot"]

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate; no score where the data cannot tell."""
        for group in answered:
            for candidate in group.candidates:
                truth = context.data.truth(group.prompt, candidate.text)
                score = None if truth is None else float(truth["true_score"])
                yield Judgement(candidate.candidate_id, "oracle", "-", "-", [score], score, [""])
