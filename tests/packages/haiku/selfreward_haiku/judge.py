"""A haiku has so many syllables: the nearer, the better.

score = max(0, 5 - |syllables - wanted| / tolerance), where a syllable is a run of vowels; no syllable, no score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from selfreward import AnsweredPrompt, Judge, Judgement, StageContext, option


class Unit(Enum):
    """What is counted."""

    syllables = "syllables"
    words = "words"


@dataclass
class HaikuConfig:
    """Options of ``judge=haiku``."""

    wanted: int = option(17, ge=1, le=100)
    """How many syllables a perfect answer has."""
    tolerance: float = option(2.0, gt=0)
    """Syllables off that cost a point."""
    unit: Unit = Unit.syllables
    """Count syllables or words."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.unit is Unit.words and self.wanted > 50:
            return [f"wanted={self.wanted} words are no haiku: 50 at most"]
        return []


class Haiku(Judge):
    """Counts."""

    config: HaikuConfig

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate."""
        for group in answered:
            for candidate in group.candidates:
                score = self._score(candidate.text)
                yield Judgement(candidate.candidate_id, "haiku", "-", "-", [score], score, [""])

    def _score(self, text: str) -> float | None:
        pattern = r"[aeiouy]+" if self.config.unit is Unit.syllables else r"\w+"
        count = len(re.findall(pattern, text.lower()))
        return max(0.0, 5 - abs(count - self.config.wanted) / self.config.tolerance) if count else None
