"""What every list of judgements must keep to, whether they become a table or train a model right away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfreward.core.contracts.records import AnsweredPrompt, Judgement
from selfreward.core.errors import StageError


def check_judgements(where: str, judgements: Sequence[Judgement], answered: Sequence[AnsweredPrompt]) -> None:
    """One judgement per candidate, in order, and every number finite.

    Args:
        where: who judged, for messages: ``judge 'llm_cot' (iter-01, judgements)``.

    Raises:
        StageError: they are not.
    """
    expected = [candidate.candidate_id for group in answered for candidate in group.candidates]
    if [judgement.candidate_id for judgement in judgements] != expected:
        raise StageError(f"{where} must give one judgement per candidate, in order")
    for judgement in judgements:
        if any(number is not None and not math.isfinite(number) for number in (judgement.score, *judgement.votes)):
            raise StageError(
                f"{where} gave candidate {judgement.candidate_id} the score {judgement.score}, which is no number; "
                "what cannot be scored is None"
            )
