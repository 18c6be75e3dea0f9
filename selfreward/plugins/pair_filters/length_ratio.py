"""Length ratio: a pair is dropped when |chosen| > max_ratio · |rejected|, in characters.

Preference training on pairs whose chosen answer is the longer one teaches length: the paper's mean answer grows from
1,092 to 2,552 characters between M1 and M3 (arXiv:2401.10020 §3.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from selfreward import Filter, Preference, UserError, option


@dataclass
class LengthRatioConfig:
    """Options of ``pair_filters=[length_ratio]``."""

    max_ratio: float = option(2.0, gt=0)
    """How many times as long as the rejected answer the chosen one may be."""


class LengthRatio(Filter):
    """Compares the lengths of a pair."""

    config: LengthRatioConfig

    def reason(self, row: Preference) -> str | None:
        """``much longer`` or None.

        Raises:
            UserError: the selector did not write pairs.
        """
        if not isinstance(row, Preference):
            raise UserError(
                f"pair_filters=[length_ratio] compares the two answers of a pair, but the selector wrote "
                f"{type(row).__name__} rows: use selector=best_worst, or leave the filter out"
            )
        chosen, rejected = (len(answer[-1]["content"]) for answer in (row.chosen, row.rejected))
        return "much longer" if chosen > self.config.max_ratio * rejected else None
