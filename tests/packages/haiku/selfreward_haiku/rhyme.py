"""Share of an answer's lines that end in a vowel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Prompt, TextMetric


@dataclass
class RhymeConfig:
    """Options of the metric ``rhyme``."""

    vowels: str = "aeiou"
    """What counts as a vowel."""


class Rhyme(TextMetric):
    """Looks at the ends of the lines."""

    config: RhymeConfig

    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float | None:
        """In 0..1; None without a line."""
        lines = [line.strip(" .") for line in answer.splitlines() if line.strip(" .")]
        return sum(line[-1] in self.config.vowels for line in lines) / len(lines) if lines else None
