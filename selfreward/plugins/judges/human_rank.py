"""The human ranking as a judge: score = −rank, so the best answer has 0 and the next −1.

Source: the ranked seed data of arXiv:2401.10020 §2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, Judge, Judgement, StageContext


@dataclass
class HumanRankConfig:
    """``judge=human_rank`` has no options."""


class HumanRank(Judge):
    """Passes the humans' ranks on; an answer that nobody ranked has no score."""

    config: HumanRankConfig

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        for candidate in (candidate for group in answered for candidate in group.candidates):
            score = None if candidate.rank is None else float(-candidate.rank)
            yield Judgement(candidate.candidate_id, "human_rank", "-", "-", [score], score, [""])
