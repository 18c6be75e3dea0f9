"""The contract of ``data``: seed prompts, human answers, held-out sets and, where it exists, a ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selfreward.core.contracts.records import AnsweredPrompt, Prompt


class Data(ABC):
    """A ``data`` plugin.

    A split is a list of prompts with the human answers they have (``AnsweredPrompt``; ``candidate.rank`` 0 = best, ties
    allowed). The core asks for these splits:

    - ``ift``: instructions and human answers (the seed prompts of self-instruction, too)
    - ``eft``: judge prompts and human-made verdicts, as the model is to write them; may be empty
    - ``evaluation``: held-out instructions on which every model is compared
    - ``ranked``: instructions with at least two human-ranked answers, from which verdicts are made; no conversation of
      ``ift`` or of a held-out split is in it; may be empty
    - ``judge_evaluation``: held-out instructions with at least two ranked answers each

    A prompt occurs once in a split, except in ``judge_evaluation``: there once per comparison.
    """

    refused: Sequence[str] = ()
    """``place: why`` of the rows that cannot be used, as far as they were read; told at the start of a run."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Why rows are in no split -> how many; told at the start of a run."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """The rows of a split; an empty sequence where this data has none. The same seed gives the same rows.

        Raises:
            UserError: a file is missing or a row cannot be used; names file and line.
        """

    def files(self) -> Sequence[Path]:
        """The files that are read: their content is part of the key of every stage that reads this data."""
        return ()

    def problems(self) -> list[str]:
        """What is wrong, before any work: missing files, missing columns; each with its mend."""
        return [f"data file {path}: no such file" for path in self.files() if not path.exists()]

    def truth(self, prompt: Prompt, answer: str) -> dict[str, float] | None:
        """Ground truth about an answer: ``true_score`` (0..5) and further 0/1 criteria; None where there is none.

        Used by ``evaluators`` and by the control ``judge=oracle``; the loop itself never sees it.
        """
        return None

    @property
    def has_truth(self) -> bool:
        """Whether :meth:`truth` is implemented."""
        return type(self).truth is not Data.truth

    def valid_prompt(self, prompt: Prompt) -> bool | None:
        """Whether a self-written prompt is a valid instruction of this data's language; None = nobody can tell."""
        return None
