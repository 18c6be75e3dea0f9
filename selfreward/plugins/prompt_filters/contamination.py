"""Contamination: a prompt is dropped when an evaluation set of the run has it, too.

It does when the words are the same in the same order, whatever their case, white space and punctuation, or when n of
them in a row are (n = 13), for prompts of so many words: see :mod:`selfreward.formats.contamination`. (Exactly the same
prompts never pass, with or without this.)
Source: arXiv:2005.14165 appendix C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Filter, Prompt, option
from selfreward.formats.contamination import EvaluationTexts


@dataclass
class ContaminationConfig:
    """Options of ``prompt_filters=[contamination]``."""

    ngram: int = option(13, ge=1)
    """Words in a row that a prompt may not share with a held-out one."""


class Contamination(Filter):
    """Compares the last user turns."""

    config: ContaminationConfig

    def begin(self, existing: Sequence[Prompt]) -> None:
        self.held_out(())

    def held_out(self, prompts: Sequence[Prompt]) -> None:
        self.evaluation = EvaluationTexts((prompt.text for prompt in prompts), self.config.ngram)

    def reason(self, prompt: Prompt) -> str | None:
        """``held out`` (the whole prompt), ``held out 13-gram``, or None."""
        if self.evaluation.has(prompt.text):
            return "held out"
        return f"held out {self.config.ngram}-gram" if self.evaluation.shared(prompt.text) else None
