"""A batch of answers as PPO learns from it: tokens, scores, and log-probabilities when they were sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfreward import AnsweredPrompt, Chat, Rollouts, Scored, StageError
from selfreward.plugins.optimizers.ppo.actor_critic import Sequences

if TYPE_CHECKING:
    from selfreward import Candidate


COUNTS = ("answers", "votes", "unreadable", "unscored", "cut_off", "too_long", "characters")
"""What is counted of a batch's answers."""


@dataclass(frozen=True)
class Answer:
    """One answer. What must not be learnt from has ``score`` None: it fills its place and weighs nothing."""

    prompt: list[int]
    tokens: list[int]
    score: float | None
    old_logprobs: tuple[float, ...] = ()
    """Log-probabilities of the tokens when it was sampled; empty = as of the policy now, which has just sampled it."""


@dataclass
class Batch:
    """Answers with their numbers, padded to the longest [answers, answer tokens], on one device."""

    answers: list[Answer]
    mask: Tensor
    scores: Tensor
    """[answers], scaled as they are learnt from; 0 where there is none."""
    counts: Counter[str] = field(default_factory=Counter)
    """See ``COUNTS``."""

    def columns(self, rows: Sequence[int]) -> int:
        """Tokens of the longest of these answers."""
        return max(len(self.answers[row].tokens) for row in rows)

    def sequences(self, rows: Sequence[int], pad_id: int) -> Sequences:
        """Some of the answers with their prompts, for the model."""
        some = [self.answers[row] for row in rows]
        before, after = max(len(a.prompt) for a in some), max(len(a.tokens) for a in some)
        ids = [
            [pad_id] * (before - len(a.prompt)) + a.prompt + a.tokens + [pad_id] * (after - len(a.tokens)) for a in some
        ]
        real = [
            [0] * (before - len(a.prompt)) + [1] * (len(a.prompt) + len(a.tokens)) + [0] * (after - len(a.tokens))
            for a in some
        ]
        device = self.mask.device
        return Sequences(
            torch.tensor(ids, device=device), torch.tensor(real, device=device), self.mask[list(rows), :after]
        )


def pack(answers: list[Answer], counts: Counter[str], device: Any) -> Batch:
    """The batch of the answers; scores as they were given."""
    width = max(len(answer.tokens) for answer in answers)
    mask = torch.zeros(len(answers), width, device=device)
    for row, answer in enumerate(answers):
        if answer.score is not None:
            mask[row, : len(answer.tokens)] = 1
    scores = torch.tensor([0.0 if a.score is None else a.score for a in answers], device=device)
    return Batch(answers, mask, scores, counts)


@dataclass(frozen=True)
class AnswerEncoder:
    """Turns answers of the engine, or of a training set, into tokens."""

    chat: Chat
    longest: int
    """Tokens of prompt and answer that fit."""
    missing_eos: float | None
    """Score of an answer that was cut off; None = what the judge says."""

    def sampled(
        self, rollouts: Rollouts, answered: list[AnsweredPrompt], step: int
    ) -> tuple[list[Answer], Counter[str]]:
        """Fresh answers with the judge's scores, always ``rollouts.n`` a prompt; one that was cut off is not judged.

        Raises:
            StageError: the sampler gave another number of answers, or answers without tokens of theirs.
        """
        judged = [
            AnsweredPrompt(group.prompt, [c for c in group.candidates if self._is_judged(c)]) for group in answered
        ]
        judgements = iter(rollouts.score([group for group in judged if group.candidates], step))
        counts: Counter[str] = Counter()
        answers: list[Answer] = []
        for group in answered:
            prompt = self.chat.encode(group.prompt.messages)
            if len(group.candidates) != rollouts.n:
                raise StageError(
                    f"the sampler gave {len(group.candidates)} answers to prompt {group.prompt.prompt_id}, and not "
                    f"sampler.n={rollouts.n}: policy gradients take them all"
                )
            for candidate in group.candidates:
                if candidate.text and not candidate.token_ids:
                    raise StageError(
                        f"the sampler gave an answer to prompt {group.prompt.prompt_id} without its token_ids: policy "
                        "gradients learn from the tokens that were sampled"
                    )
                score, cut = self.missing_eos, candidate.finish_reason == "length"
                if self._is_judged(candidate):
                    judgement = next(judgements)
                    score = judgement.score
                    counts["votes"] += len(judgement.votes)
                    counts["unreadable"] += sum(vote is None for vote in judgement.votes)
                    counts["unscored"] += score is None
                counts["cut_off"] += cut
                counts["characters"] += len(candidate.text)
                answers.append(self._answer(prompt, candidate.token_ids, score, counts))
        return answers, counts

    def stored(self, rows: Iterable[Scored]) -> tuple[list[Answer], Counter[str]]:
        """Answers of a training set."""
        counts: Counter[str] = Counter()
        answers = []
        for row in rows:
            prompt, text = self.chat.encode(row.prompt), row.completion[-1]["content"]
            counts["characters"] += len(text)
            answers.append(self._answer(prompt, list(row.token_ids) or self.chat.encode_reply(text), row.score, counts))
        return answers, counts

    def _is_judged(self, candidate: Candidate) -> bool:
        return self.missing_eos is None or candidate.finish_reason != "length"

    def _answer(self, prompt: list[int], tokens: Sequence[int], score: float | None, counts: Counter[str]) -> Answer:
        """One without tokens (the prompt left no room), or that does not fit, has no score."""
        counts["answers"] += 1
        if not tokens or len(prompt) + len(tokens) > self.longest:
            counts["too_long"] += 1
            return Answer(prompt[-1:], [self.chat.pad_id], None)
        return Answer(prompt, list(tokens), score)


def by_length(batch: Batch, rows: Sequence[int], size: int) -> list[list[int]]:
    """The rows in passes of so many, those of like length together, so that less is padded."""
    length: Callable[[int], int] = lambda row: len(batch.answers[row].prompt) + len(batch.answers[row].tokens)  # noqa: E731
    ordered = sorted(rows, key=lambda row: (length(row), row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
