"""Score balance: no score may make up more than a share of the training rows.

A judge that learns from verdicts most of which are a 4 learns to say 4. A row is dropped when its score already holds
``max_share`` of the rows kept so far, from ``warm_up`` rows on; rows come in a fixed order, so the result is too.
Source: "remove some of the examples with a score of 4", arXiv:2401.10020 §3.1.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import Demonstration, Filter, UserError, option


@dataclass
class ScoreBalanceConfig:
    """Options of ``pair_filters=[score_balance]``."""

    max_share: float = option(0.3, gt=0, le=1)
    """Share of the rows that one score may have."""
    warm_up: int = option(10, ge=1)
    """Rows that are kept before shares are looked at."""


class ScoreBalance(Filter):
    """Counts the scores of the rows that were kept."""

    config: ScoreBalanceConfig

    def begin(self, existing: Sequence[Any]) -> None:
        """Start counting."""
        self._counts: Counter[float] = Counter()

    def reason(self, row: Demonstration) -> str | None:
        """``common score`` or None.

        Raises:
            UserError: the selector did not write demonstrations.
        """
        if not isinstance(row, Demonstration):
            raise UserError(
                f"pair_filters=[score_balance] looks at the score of a demonstration, but the selector wrote "
                f"{type(row).__name__} rows: leave the filter out"
            )
        kept = self._counts.total()
        too_many = self._counts[row.score] + 1 > self.config.max_share * (kept + 1)
        return "common score" if kept >= self.config.warm_up and too_many else None

    def kept(self, row: Demonstration) -> None:
        self._counts[row.score] += 1
