"""Best against worst: at most one preference pair per prompt.

chosen = argmax score, rejected = argmin score; a tie gives no pair.
Source: arXiv:2401.10020 §2.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import JudgedPrompt, Preference, Selector, option


@dataclass
class BestWorstConfig:
    """Options of ``selector=best_worst``."""

    margin: float = option(0.0, ge=0)
    """Score difference, in rubric points, that a pair must exceed."""


class BestWorst(Selector):
    """Pairs the best answer with the worst one that says something else."""

    writes = Preference
    config: BestWorstConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Preference]:
        """Yield the pair. Candidates that are unscored, empty or cut off at the token limit do not compete.

        Two equal texts teach nothing, so the worst is the lowest-scored one whose text is not the best one's. Among
        equal scores the first sampled is the best and the last sampled the worst.
        """
        ranked = judged.finished_by_score()
        others = [answer for answer in ranked if answer.text != ranked[0].text]
        if others and ranked[0].score - others[-1].score > self.config.margin:
            yield Preference.of(judged.prompt, chosen=ranked[0], rejected=others[-1])
