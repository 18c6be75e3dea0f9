"""Exact match: 1 where the answer is one of the references, else 0; for questions with short answers.

White space around them and between words does not count. Source: arXiv:1606.05250 §6.1 (SQuAD).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Prompt, TextMetric


@dataclass
class ExactMatchConfig:
    """Options of the metric ``exact_match``."""

    ignore_case: bool = False
    """Whether case does not count."""
    ignore_punctuation: bool = False
    """Whether punctuation does not count; mind that -3 and 3.5 are then 3 and 35."""


class ExactMatch(TextMetric):
    """Compares the texts."""

    needs_references = True
    config: ExactMatchConfig

    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float:
        return float(self._plain(answer) in map(self._plain, references))

    def _plain(self, text: str) -> str:
        text = text.casefold() if self.config.ignore_case else text
        if self.config.ignore_punctuation:
            text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
        return " ".join(text.split())
