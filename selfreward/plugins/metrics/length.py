"""Closeness to a length: min(n / target, target / n) for an answer of n words.

1 at the target, ½ at half of it and at twice as much, 0 for an empty answer. It asks for no reference, and beside
another metric it keeps that one from being won by length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Prompt, TextMetric, option


@dataclass
class LengthConfig:
    """Options of the metric ``length``."""

    target: int = option(100, ge=1)
    """Words of an answer that is neither too short nor too long."""


class Length(TextMetric):
    """Counts words, told apart by white space."""

    config: LengthConfig

    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float:
        shorter, longer = sorted((len(answer.split()), self.config.target))
        return shorter / longer
