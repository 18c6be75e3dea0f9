"""Prompts from the data: the instructions of a split, as they are.

With ``n`` the split is shuffled by the run's seed and its first ``n`` are taken; without, all of them in their order.
Source: the seed rounds of arXiv:2401.10020 §2.1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, Data, Prompt, PromptGenerator, StageContext, option


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
    _listed: tuple[Sequence[AnsweredPrompt], int | None, list[Prompt]] | None = None

    def expected(self, data: Data, seed: int) -> int | None:
        return len(data.split(self.config.split, seed)) if self.config.n is None else self.config.n

    def propose(self, rows: range, earlier: Sequence[Prompt], context: StageContext) -> Iterator[Prompt]:
        """The prompts at those places of the (shuffled) split, until it ends."""
        shuffled_by = None if self.config.n is None else context.seed("shuffle")
        yield from self._prompts(context, shuffled_by)[rows.start : rows.stop]

    def _prompts(self, context: StageContext, shuffled_by: int | None) -> list[Prompt]:
        """All of them, listed once for all slices."""
        split = context.data.split(self.config.split, context.run_seed)
        if self._listed is None or self._listed[0] is not split or self._listed[1] != shuffled_by:
            prompts = [answered.prompt for answered in split]
            if shuffled_by is not None:
                random.Random(shuffled_by).shuffle(prompts)
            self._listed = split, shuffled_by, prompts
        return self._listed[2]
