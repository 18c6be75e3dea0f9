"""Demonstrations: the best answers of each prompt are imitated, whatever their score.

For human answers: with ``judge=human_rank`` and top = 1 it takes the top-ranked reply.
Source: the IFT data of arXiv:2401.10020 §2.1 and §3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import Demonstration, JudgedPrompt, Selector, option


@dataclass
class DemonstrationsConfig:
    """Options of ``selector=demonstrations``."""

    top: int = option(1, ge=1)
    """Answers taken per prompt, best first."""


class Demonstrations(Selector):
    """Takes the best answers."""

    writes = Demonstration
    config: DemonstrationsConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Demonstration]:
        """Yield the demonstrations, best first. Unscored, empty and cut-off candidates do not compete."""
        for answer in judged.finished_by_score()[: self.config.top]:
            yield Demonstration.of(judged.prompt, answer)
