"""Novelty: a prompt is dropped when its ROUGE-L F1 with any existing prompt reaches the threshold.

ROUGE-L F1(a, b) = 2 · LCS(a, b) / (|a| + |b|), over the words of a and b, LCS = longest common subsequence. That is the
normalised Indel similarity, so words are mapped to characters and rapidfuzz compares them in C.
Source: arXiv:2212.10560 §2.2 (0.7); ROUGE-L after Lin 2004.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Filter, Prompt, option

_WORD = re.compile(r"[^\W_]+")
_SLACK = 1e-4  # rapidfuzz takes some scores that equal its cutoff for lower ones, so it is asked for a little less
_ROUNDING = 1e-9  # far below the distance of two F1 values


@dataclass
class RougeLConfig:
    """Options of ``prompt_filters=[rouge_l]``."""

    threshold: float = option(0.7, gt=0, le=1)
    """ROUGE-L F1 with an existing prompt from which on a prompt is dropped."""


class RougeL(Filter):
    """Compares each prompt with the seeds and with every prompt that was kept before it."""

    config: RougeLConfig

    def __init__(self, config: RougeLConfig) -> None:
        super().__init__(config)
        self.vocabulary: dict[str, str] = {}
        self.known: list[str] = []

    def begin(self, existing: Sequence[Prompt]) -> None:
        """Remember the seed prompts."""
        self.known = [self._encoded(prompt) for prompt in existing]

    def reason(self, prompt: Prompt) -> str | None:
        """``too similar``, or None."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        encoded = self._encoded(prompt)
        if not encoded:  # without words there is nothing to compare; two empty sequences would count as equal
            return None
        least = self.config.threshold - _SLACK
        best = process.extractOne(encoded, self.known, scorer=Indel.normalized_similarity, score_cutoff=least)
        return "too similar" if best and best[1] >= self.config.threshold - _ROUNDING else None

    def kept(self, prompt: Prompt) -> None:
        """Later prompts are compared with this one, too."""
        self.known.append(self._encoded(prompt))

    def _encoded(self, prompt: Prompt) -> str:
        return "".join(self.vocabulary.setdefault(word, chr(len(self.vocabulary))) for word in words(prompt.text))


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits; on ASCII text the tokens of the ``rouge_score`` package, unstemmed."""
    return _WORD.findall(text.lower())
