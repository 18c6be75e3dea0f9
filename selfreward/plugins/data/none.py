"""No data: for measuring a checkpoint on question files alone (``python -m selfreward evaluate``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, Data


@dataclass
class NoDataConfig:
    """It has no options."""


class NoData(Data):
    """Every split is empty."""

    config: NoDataConfig

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        return ()
