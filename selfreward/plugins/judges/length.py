"""A control that prefers the longer answer: score = number of characters.

People do so often enough that a judge has to beat it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, Judge, Judgement, StageContext


@dataclass
class LengthConfig:
    """``judge=length`` has no options."""


class Length(Judge):
    """Counts characters."""

    config: LengthConfig

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        for candidate in (candidate for group in answered for candidate in group.candidates):
            score = float(len(candidate.text))
            yield Judgement(candidate.candidate_id, "length", "-", "-", [score], score, [""])
