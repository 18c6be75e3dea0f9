"""Novelty: a prompt is dropped when its ROUGE-L F1 with any existing prompt reaches the threshold.

ROUGE-L F1(a, b) = 2 · LCS(a, b) / (|a| + |b|), over the words of a and b, LCS = longest common subsequence. That is the
normalised Indel similarity, so words are mapped to characters and rapidfuzz compares them in C.

Few prompts have to be compared. F1 ≥ t with a prompt of n words takes tn / (2 − t) to n(2 − t) / t words, and at least
tn / (2 − t) words in common: among any n − ⌈tn / (2 − t)⌉ + 1 of the n there is one that both have. So an index gives
those that hold one of the n's rarest words, and of these the ones of a possible length are compared. It is the prefix
filter of similarity joins (Chaudhuri et al. 2006), and changes no result.

Source: arXiv:2212.10560 §2.2 (below 0.7 is new); ROUGE-L after Lin 2004.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import Filter, Prompt, option
from selfreward.formats.words import words

_SLACK = 1e-4  # rapidfuzz takes some scores that equal its cutoff for lower ones, so it is asked for a little less
_ROUNDING = 1e-9  # far below the distance of two F1 values
_UNKNOWN = "\0"  # a word that no existing prompt has


@dataclass
class RougeLConfig:
    """Options of ``prompt_filters=[rouge_l]``."""

    threshold: float = option(0.7, gt=0, le=1)
    """ROUGE-L F1 with an existing prompt from which on a prompt is dropped."""


class RougeL(Filter):
    """Compares each prompt with the seeds and with every prompt that was kept before it."""

    config: RougeLConfig

    def begin(self, existing: Sequence[Prompt]) -> None:
        self.vocabulary: dict[str, str] = {}
        self.known: list[str] = []
        self.holders: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for prompt in existing:
            self.kept(prompt)

    def reason(self, prompt: Prompt) -> str | None:
        """``too similar``, or None."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        encoded = self.encoded(prompt.text)
        if not encoded:  # without words there is nothing to compare; two empty sequences would count as equal
            return None
        least = max(self.config.threshold - _SLACK, 0.0)
        best = process.extractOne(
            encoded, self.candidates(encoded, least), scorer=Indel.normalized_similarity, score_cutoff=least
        )
        return "too similar" if best and best[1] >= self.config.threshold - _ROUNDING else None

    def kept(self, prompt: Prompt) -> None:
        for word in words(prompt.text):
            self.vocabulary.setdefault(word, chr(len(self.vocabulary) + 1))
        encoded = self.encoded(prompt.text)
        for occurrence in _occurrences(encoded):
            self.holders[occurrence].append(len(self.known))
        self.known.append(encoded)

    def encoded(self, text: str) -> str:
        """A character for each word."""
        return "".join(self.vocabulary.get(word, _UNKNOWN) for word in words(text))

    def candidates(self, encoded: str, least: float) -> list[str]:
        """The existing prompts that may reach the score ``least``; no other prompt can."""
        shared = math.ceil(least * len(encoded) / (2 - least))
        holders = sorted((self.holders.get(each, []) for each in _occurrences(encoded)), key=len)
        rarest = holders[: len(encoded) - shared + 1]
        # where even the rarest words are everywhere it is quicker to look at all
        everywhere = sum(map(len, rarest)) > len(self.known)
        found = self.known if everywhere else [self.known[index] for index in set[int]().union(*rarest)]
        longest = len(encoded) * (2 - least)
        return [other for other in found if shared <= len(other) and len(other) * least <= longest]


def _occurrences(encoded: str) -> Iterator[tuple[str, int]]:
    """Each word with how often it came before: what two texts share of these is what they share as bags of words."""
    seen = Counter[str]()
    for word in encoded:
        yield word, seen[word]
        seen[word] += 1
