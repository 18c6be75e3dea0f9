"""No round at all: M0 is measured and nothing is trained (``python -m selfreward evaluate``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import Data, Recipe, Round


@dataclass
class NoRoundsConfig:
    """It has no options."""


class NoRounds(Recipe):
    """No rounds, whatever ``iterations`` says."""

    config: NoRoundsConfig

    def rounds(self, loop: Round, iterations: int, data: Data) -> Iterator[Round]:
        return iter(())
