"""Prompts from the data: the instructions of a split, as they are.

With ``n`` the split is shuffled by the run's seed and its first ``n`` are taken; without, all of them in their order.
Source: the seed rounds of arXiv:2401.10020 §2.1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import Prompt, PromptGenerator, StageContext, option


@dataclass
class DatasetConfig:
    """Options of ``prompt_generator=dataset``."""

    split: str = "ift"
    """Split of the data the prompts are read from."""
    n: int | None = option(None, ge=1)
    """Prompts wanted, drawn by the run's seed; None takes the whole split in its order."""


class Dataset(PromptGenerator):
    """Reads prompts; ids and sources stay those of the data."""

    config: DatasetConfig

    def propose(self, rows: range, earlier: Sequence[Prompt], context: StageContext) -> Iterator[Prompt]:
        """The prompts at those places of the (shuffled) split, until it ends."""
        prompts = [answered.prompt for answered in context.data.split(self.config.split, context.run_seed)]
        if self.config.n is not None:
            random.Random(context.seed("shuffle")).shuffle(prompts)
        yield from prompts[rows.start : rows.stop]
