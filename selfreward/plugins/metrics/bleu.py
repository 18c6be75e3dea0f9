"""BLEU of one answer: the geometric mean of its n-gram precisions, times a penalty for being short.

BLEU = BP · exp(Σ log p_n / N), n = 1..N = 4     BP = min(1, exp(1 − reference length / answer length))

p_n is the share of the answer's n-grams that a reference has, each as often as in the reference that has it most. A
single answer often has no common 4-gram: zero precisions are smoothed (``exp``), and N is at most the answer's own
length (effective order), as ``sacrebleu`` advises for sentences.

Source: Papineni et al. 2002; Chen and Cherry 2014 (smoothing); library: sacrebleu, arXiv:1804.08771.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfreward import option
from selfreward.plugins.metrics.sentence_score import SentenceScore

TOKENIZERS = ("13a", "char", "intl", "zh", "none")
"""Those of the library that need nothing else, and fetch nothing."""


@dataclass
class BleuConfig:
    """Options of the metric ``bleu``."""

    max_order: int = option(4, ge=1)
    """Longest n-grams."""
    tokenize: str = "13a"
    """How words are told apart: 13a (WMT's), intl (other scripts), zh, char, or none (at white space)."""
    lowercase: bool = False
    """Whether case is ignored."""

    def problems(self) -> list[str]:
        """A tokenizer that is none."""
        known = ", ".join(TOKENIZERS)
        return [] if self.tokenize in TOKENIZERS else [f"tokenize={self.tokenize}: there are {known}"]


class Bleu(SentenceScore):
    """Smoothed sentence BLEU."""

    config: BleuConfig

    def make(self) -> Any:
        """The library's metric, with the options."""
        from sacrebleu.metrics import BLEU

        c = self.config
        return BLEU(c.lowercase, tokenize=c.tokenize, max_ngram_order=c.max_order, effective_order=True)
