"""What the metrics of the ``sacrebleu`` library share: one answer's score, as a share of 1."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from selfreward import FileContext, Prompt, TextMetric


class SentenceScore(TextMetric):
    """A sentence-level score against all references together, in 0..1 (the library's own is 0..100)."""

    needs_references = True

    def problems(self, context: FileContext) -> list[str]:
        """Whether the library is there."""
        installed = importlib.util.find_spec("sacrebleu")
        return [] if installed else ["it needs sacrebleu: pip install 'selfreward[metrics]'"]

    @cached_property
    def scorer(self) -> Any:
        """The library's metric."""
        return self.make()

    @abstractmethod
    def make(self) -> Any:
        """The library's metric, with the options."""

    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float | None:
        """The score; None where every reference is blank."""
        known = [reference for reference in references if reference.strip()]
        # of a perfect answer the library's exp(mean of log 100) is a little more than 100
        return min(1.0, self.scorer.sentence_score(answer, known).score / 100) if known else None
