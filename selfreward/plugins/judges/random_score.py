"""A control that knows nothing: score ~ uniform integers of the rubric's range.

Whatever a run gains with it does not come from judging.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward import AnsweredPrompt, FileContext, Judge, Judgement, StageContext


@dataclass
class RandomConfig:
    """Options of ``judge=random``."""

    rubric: str | None = None
    """Rubric whose range the scores are drawn from; None takes the one the model declares."""


class Random(Judge):
    """Draws a score from the candidate's seed."""

    config: RandomConfig

    def files(self, context: FileContext) -> list[Path]:
        return [context.rubric_path(self.config.rubric)]

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        rubric = context.rubric(self.config.rubric)
        low, high = math.ceil(rubric.low), math.floor(rubric.high)
        for candidate in (candidate for group in answered for candidate in group.candidates):
            seed = context.seed(candidate.candidate_id)
            score = float(random.Random(seed).randint(low, high))
            yield Judgement(candidate.candidate_id, "random", "-", rubric.name, [score], score, [""], seed)
