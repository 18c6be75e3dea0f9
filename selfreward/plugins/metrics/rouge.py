"""ROUGE-1, ROUGE-2 and ROUGE-L: the F-measure of the words, pairs of words, or longest common subsequence of words.

::

    recall = common / in the reference     precision = common / in the answer     F = 2PR / (P + R)

in common are, for ROUGE-N, the n-grams that both have, as often as both have them; for ROUGE-L the words of the longest
subsequence that both have. Words are lower-case runs of letters and digits, unstemmed: on ASCII text those of the
``rouge_score`` package, whose numbers these are. Of several references the one with the highest F counts.

Source: Lin 2004 (ROUGE); as a reward: arXiv:1705.04304, arXiv:2210.01241 §3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from selfreward import Prompt, TextMetric
from selfreward.formats.words import words


@dataclass
class RougeConfig:
    """ROUGE has no options; its variants are metrics of their own."""


class Rouge(TextMetric):
    """F-measure against the nearest reference, in 0..1."""

    needs_references = True
    config: RougeConfig

    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float | None:
        """The highest F; None where no reference has anything to find again."""
        mine, found = words(answer), []
        for theirs in map(words, references):
            if wanted := self.size(theirs):
                # P = common / size(mine), R = common / wanted
                found.append(2 * self.common(mine, theirs) / (self.size(mine) + wanted))
        return max(found, default=None)

    @abstractmethod
    def size(self, text: list[str]) -> int:
        """What there is to find again in a text."""

    @abstractmethod
    def common(self, mine: list[str], theirs: list[str]) -> int:
        """What both have."""


class RougeN(Rouge):
    """Runs of ``n`` words."""

    n: ClassVar[int]

    def size(self, text: list[str]) -> int:
        """Number of n-grams."""
        return max(0, len(text) - self.n + 1)

    def common(self, mine: list[str], theirs: list[str]) -> int:
        """Common n-grams, each as often as both have it."""
        return (self._grams(mine) & self._grams(theirs)).total()

    def _grams(self, text: list[str]) -> Counter[tuple[str, ...]]:
        return Counter(tuple(text[k : k + self.n]) for k in range(self.size(text)))


class Rouge1(RougeN):
    """Words."""

    n = 1


class Rouge2(RougeN):
    """Pairs of neighbouring words."""

    n = 2


class RougeL(Rouge):
    """The longest common subsequence of words."""

    def size(self, text: list[str]) -> int:
        """Number of words."""
        return len(text)

    def common(self, mine: list[str], theirs: list[str]) -> int:
        from rapidfuzz.distance import LCSseq

        return LCSseq.similarity(mine, theirs)
