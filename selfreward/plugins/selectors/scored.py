"""Every answer with its score: the training set of a policy gradient whose answers were sampled before.

Candidates that are unscored, empty or cut off at the token limit are left out, as from every training set.
Source: the staged PPO of arXiv:2305.13735 §2.3, whose answers and rewards are made before it trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import JudgedPrompt, Scored, Selector


@dataclass
class ScoredConfig:
    """``selector=scored`` has no options."""


class ScoredAnswers(Selector):
    """Passes all answers with a score on, in the order in which they were sampled."""

    writes = Scored
    config: ScoredConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Scored]:
        usable = {answer.candidate.candidate_id for answer in judged.finished_by_score()}
        for answer in judged.scored():
            if answer.candidate.candidate_id in usable:
                yield Scored.of(judged.prompt, answer)  # type: ignore[misc]
