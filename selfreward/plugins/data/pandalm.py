"""PandaLM's test set: pairs of models' responses, three people's labels each (:mod:`selfreward.formats.pandalm`).

The label of most of them ranks the pair; a tie is equal ranks. A prompt occurs once for each pair of models, so
``judge_evaluation`` holds it several times, while ``ift`` and ``ranked`` take its first pair.
Source: arXiv:2306.05087 §4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward import option
from selfreward.formats import cells, pandalm
from selfreward.plugins.data.human_answers import Exchange, HumanDataConfig, RowByRow

_RANKS = {0: (0, 0), 1: (0, 1), 2: (1, 0)}
"""Ranks of response 1 and 2 by label."""


@dataclass
class PandaLmConfig(HumanDataConfig):
    """Where the pairs are, and which part of them is for what."""

    WANTED: ClassVar[str] = "PandaLM's file of pairs, data.path=testset-v1.json"

    agree: int = option(2, ge=2, le=3)
    """Annotators, of three, who must agree on a pair."""


class PandaLm(RowByRow):
    """Instructions with two responses, ranked by the majority of three people."""

    columns = pandalm.COLUMNS
    config: PandaLmConfig

    def exchange(self, row: dict[str, Any]) -> Iterator[Exchange]:
        """The pair, or nothing where too few agree."""
        found, label = pandalm.comparison(row), pandalm.label(row, self.config.agree)
        if label is None:
            self.leave_out(f"fewer than {self.config.agree} of 3 annotators agree")
            return
        answers = list(zip(_RANKS[label], (found.first, found.second), strict=True))
        yield Exchange(cells.asked(found.prompt), answers, compared=True, topic=found.instruction.strip())
