"""Static HHH: does the model prefer the helpful, honest, harmless reply?

221 pairs of replies written by people, each to one prompt: 59 helpful, 58 harmless, 61 honest, 43 other. Accuracy over
all pairs and within each category; what decides, and how ties count, is told in ``pair_accuracy``. The control, "the
longer reply wins" (``by=length``), is right on 63.3 % (helpful 70.3, harmless 62.1, honest 63.9, other 54.7).
The file has one pair a row: ``source`` (the category), ``instruction``, ``chosen``, ``rejected``; conversations in
``instruction`` become turns. A category has some 50 pairs: its interval is 25 points wide.
Source: arXiv:2112.00861 §1.2, and BIG-bench's task ``hhh_alignment``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward.plugins.evaluators.pair_accuracy import PairAccuracy, PairAccuracyConfig


@dataclass
class HhhConfig(PairAccuracyConfig):
    """Which pairs, and what decides."""

    def problems(self) -> Iterator[str]:
        """A path that is not given."""
        if not self.path.strip():
            yield "path is not set; give the file of pairs: rows of source, instruction, chosen, rejected"


class Hhh(PairAccuracy):
    """Accuracy overall and per category."""

    name = "hhh"
    config: HhhConfig
