"""Positive examples only: answers that reach a score are imitated, and nothing is learnt from the others.

The paper adds the answers with a perfect score, 5, to the seed data and finds no gain over M1: an ablation.
Source: arXiv:2401.10020 §2.3 and §3.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import Demonstration, JudgedPrompt, ScoredCandidate, Selector, option


@dataclass
class PositiveOnlyConfig:
    """Options of ``selector=positive_only``."""

    threshold: float = option(5.0)
    """Score, in rubric points, that an answer must reach."""
    every: bool = False
    """Take every answer that reaches it, equal texts once; otherwise only the best one of each prompt."""


class PositiveOnly(Selector):
    """Takes what the judge found good."""

    writes = Demonstration
    config: PositiveOnlyConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Demonstration]:
        """Yield the demonstrations, best first. Unscored, empty and cut-off candidates do not compete."""
        good = [answer for answer in judged.finished_by_score() if answer.score >= self.config.threshold]
        distinct: dict[str, ScoredCandidate] = {}
        for answer in good:
            distinct.setdefault(answer.text, answer)
        for answer in list(distinct.values()) if self.config.every else good[:1]:
            yield Demonstration.of(judged.prompt, answer)
