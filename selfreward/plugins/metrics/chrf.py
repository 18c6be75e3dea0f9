"""chrF of one answer: an F-measure of its character n-grams, which asks for no tokenizer.

chrF_β = (1 + β²) · P · R / (β² · P + R),  P and R = mean over n = 1..6 of the precision and recall of the n-grams

β = 2 weighs recall twice as much as precision. ``word_order=2`` counts words and pairs of words, too (chrF++). Of
several references the nearest counts.

Source: Popović 2015 (chrF), 2017 (chrF++); library: sacrebleu, arXiv:1804.08771.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfreward import option
from selfreward.plugins.metrics.sentence_score import SentenceScore


@dataclass
class ChrfConfig:
    """Options of the metric ``chrf``."""

    char_order: int = option(6, ge=1)
    """Longest n-grams of characters."""
    word_order: int = option(0, ge=0)
    """Longest n-grams of words; 2 makes it chrF++."""
    beta: int = option(2, ge=1)
    """How many times recall weighs as much as precision."""
    lowercase: bool = False
    """Whether case is ignored."""


class Chrf(SentenceScore):
    """chrF, or chrF++."""

    config: ChrfConfig

    def make(self) -> Any:
        """The library's metric, with the options."""
        from sacrebleu.metrics import CHRF

        c = self.config
        return CHRF(c.char_order, c.word_order, c.beta, c.lowercase)
