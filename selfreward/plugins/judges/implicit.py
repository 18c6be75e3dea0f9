"""The policy's own reward, with no question asked: how much likelier training has made an answer.

::

    score = beta (log pi(y|x) - log pi_ref(y|x))            - alpha |y|
    score = beta (log pi(y|x) - log pi_ref(y|x)) / |y|      - alpha |y|     with length_normalised

What DPO trains is a reward model in disguise: its optimum is the policy for which this is the reward, up to a term of
the prompt alone, which cancels where answers to one prompt are compared (arXiv:2305.18290 §5.1). A policy that was
trained on preferences can so judge its own next answers: DICE (arXiv:2406.09760) takes alpha away per token, so that
chosen answers do not grow longer from round to round; CREAM (arXiv:2410.12735) compares such rankings of two policies.

|y| counts the answer's tokens with the end of its turn, where it has one. Answers are weighed by the tokens that were
sampled, others as text, and at temperature 1. An answer that does not fit into the context of one of the two models, or
that one of them would never give (a probability of 0), has no score. Both models must read the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import (
    AnsweredPrompt,
    Candidate,
    Continuations,
    Judge,
    Judgement,
    Likelihood,
    StageContext,
    StageError,
    option,
    role,
)

_ALL_TIES = (
    "so every score would be 0: name as judge.reference what judge.model was trained from (base, sft, M1, ...); where "
    "nothing is trained yet, another judge has to begin"
)


@dataclass
class ImplicitConfig:
    """Options of ``judge=implicit``."""

    model: str = role("policy")
    """Role of the model whose reward it is; one that was trained on preferences (``optimizer=dpo``)."""
    reference: str = role("base")
    """Role of the model it is compared with: what that training started from or was held to (base, sft, M1, ...)."""
    beta: float = option(0.1, gt=0)
    """Scale of the reward; ``optimizer.beta`` of the training that made the model."""
    length_normalised: bool = False
    """Take the mean over the answer's tokens, not the sum."""
    length_penalty: float = option(0.0, ge=0)
    """alpha: what each token of an answer costs, in points of the score; 0 = off."""

    def problems(self) -> list[str]:
        """Rules between options."""
        return [f"model and reference are both {self.model}, {_ALL_TIES}"] if self.model == self.reference else []


class Implicit(Judge):
    """The log-ratio of an answer under two models."""

    uses_model = True
    writes_verdicts = False
    config: ImplicitConfig

    def models(self) -> tuple[str, ...]:
        """The model that judges, and the one it is compared with."""
        return self.config.model, self.config.reference

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """Weigh every answer twice.

        Raises:
            StageError: model and reference are the same, or read a text in different tokens.
        """
        reference = context.of(self.config.reference)
        if context.model == reference.model:
            raise StageError(f"judge=implicit: judge.model and judge.reference are both {context.model}, {_ALL_TIES}")
        candidates = [candidate for group in answered for candidate in group.candidates]
        asked = [_question(group, candidate) for group in answered for candidate in group.candidates]
        mine = [found for [found] in context.likelihoods(asked)]
        theirs = [found for [found] in reference.likelihoods(asked)]
        _check(context.model, mine, reference.model, theirs)
        for candidate, *weighed in zip(candidates, mine, theirs, strict=True):
            score = self._reward(*weighed)
            yield Judgement(candidate.candidate_id, "implicit", context.model, "-", [score], score, [""])

    def _reward(self, mine: Likelihood, theirs: Likelihood) -> float | None:
        tokens = len(mine.token_ids)
        if not tokens or not theirs.token_ids:
            return None
        ratio = mine.total - theirs.total
        reward = self.config.beta * (ratio / tokens if self.config.length_normalised else ratio)
        reward -= self.config.length_penalty * tokens
        return reward if math.isfinite(reward) else None


def _question(group: AnsweredPrompt, candidate: Candidate) -> Continuations:
    """How likely is this answer, as it was sampled? One that was cut off has not ended."""
    reply = candidate.token_ids or candidate.text
    return Continuations(group.prompt.messages, [reply], ended=candidate.finish_reason != "length")


def _check(model: str, mine: Sequence[Likelihood], reference: str, theirs: Sequence[Likelihood]) -> None:
    """Refuse two models that cannot be compared, and two that are one."""
    both = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.token_ids and b.token_ids]
    if any(a.token_ids != b.token_ids for a, b in both):
        raise StageError(
            f"judge=implicit: {model} and {reference} read the same answer in different tokens, so their probabilities "
            "cannot be compared: name a judge.reference with the tokenizer of judge.model"
        )
    if both and all(a.logprobs == b.logprobs for a, b in both):
        raise StageError(f"judge=implicit: {model} and {reference} have the same weights, {_ALL_TIES}")
