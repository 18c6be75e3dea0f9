"""What a batch is learnt from: log-probabilities, values, advantages and returns as they were before its updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from selfreward import TrainingContext
from selfreward.plugins.optimizers.ppo.actor_critic import ActorCritic, answer_logprobs
from selfreward.plugins.optimizers.ppo.advantages import generalised_advantages, token_rewards, whiten
from selfreward.plugins.optimizers.ppo.answers import Batch, by_length
from selfreward.plugins.optimizers.ppo.loss import explained_variance
from selfreward.plugins.optimizers.ppo.models import precision
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.ppo.scores import scale
from selfreward.plugins.optimizers.ppo.state import State
from selfreward.plugins.optimizers.training.processes import rows_per_pass, totals


@dataclass(frozen=True)
class Experience:
    """Of each token of a batch [answers, answer tokens]."""

    old_logprobs: Tensor
    """Under the policy that sampled."""
    values: Tensor
    kl: Tensor
    """Log-ratio of the policy to the reference, weighed by its ratio to the policy that sampled."""
    advantages: Tensor
    returns: Tensor


class ExperienceMaker:
    """Runs policy, value function and reference over batches, without gradients.

    Attributes:
        reference: None where the policy with its adapters off is the reference.
    """

    def __init__(
        self, model: ActorCritic, reference: Any, context: TrainingContext, config: PpoConfig,
        accelerator: Accelerator, pad_id: int,
    ) -> None:  # fmt: skip
        self.model, self.reference, self.config, self.pad_id = model, reference, config, pad_id
        self.accelerator, self.temperature = accelerator, context.temperature
        self._rows, self._precision = 2 * rows_per_pass(config), precision(context.start)

    @torch.no_grad()
    def make(self, batch: Batch, state: State, stored: bool) -> Experience:
        """The experience of a batch with scaled scores, of stored answers or of those that the policy has just given.

        In the first batch the value function is made to begin at the mean score.
        """
        self.model.eval()
        shape, device = batch.mask.shape, batch.mask.device
        logprobs, values, ref_logprobs = (torch.zeros(shape, device=device) for _ in range(3))
        for rows in by_length(batch, range(len(batch.answers)), self._rows):
            sequences, width = batch.sequences(rows, self.pad_id), batch.columns(rows)
            with self._precision():
                outputs = self.model(sequences)
                logprobs[rows, :width], values[rows, :width] = outputs.logprobs, outputs.values
                ref_logprobs[rows, :width] = self._ref_logprobs(sequences)
        if not state.batch:
            values = self._init_values(batch, values, scale(state)[1])
        old_logprobs = _stored_logprobs(batch, logprobs) if stored else logprobs
        kl = (logprobs - ref_logprobs) * batch.mask
        rewards = token_rewards(batch.scores, kl, batch.mask, state.beta)
        advantages, returns = generalised_advantages(rewards, values, batch.mask, self.config.gamma, self.config.lam)
        if self.config.whiten_advantages:
            count, total, squares = totals(self.accelerator, batch.mask.sum(), advantages.sum(), (advantages**2).sum())
            mean = total / count
            advantages = whiten(advantages, mean, max(0.0, squares / count - mean**2), batch.mask)
        # stored answers are the start's: weighed by the ratio, their mean is the policy's KL, and not one to the start
        return Experience(old_logprobs, values, (logprobs - old_logprobs).exp() * kl, advantages, returns)

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> list[list[float]]:
        """Log-probabilities of all tokens of a batch."""
        self.model.eval()
        known: list[list[float]] = [[] for _ in batch.answers]
        for rows in by_length(batch, range(len(batch.answers)), self._rows):
            with self._precision():
                logprobs = self.model(batch.sequences(rows, self.pad_id)).logprobs
            for row, values in zip(rows, logprobs.tolist(), strict=True):
                known[row] = values[: len(batch.answers[row].tokens)]
        return known

    def explained_variance(self, batch: Batch, experience: Experience) -> float:
        """See :func:`explained_variance`, over all processes."""
        tensors = (experience.values, experience.returns, batch.mask)
        if self.accelerator.num_processes > 1:
            padded = [self.accelerator.pad_across_processes(tensor, dim=1) for tensor in tensors]
            values, returns, mask = (self.accelerator.gather(tensor) for tensor in padded)
            return explained_variance(values, returns, mask)
        return explained_variance(*tensors)

    def _ref_logprobs(self, sequences: Any) -> Tensor:
        if self.reference is None:
            return self.model.reference_logprobs(sequences)
        return answer_logprobs(self.reference, sequences, self.temperature, False)[0]

    def _init_values(self, batch: Batch, values: Tensor, sd: float) -> Tensor:
        """Let the value function begin at the mean score, in its scale; the values it has then."""
        head, shrink = self.model.value_head, 1 / sd  # a reward model's head is in the judge's points
        head.weight.mul_(shrink)
        head.bias.mul_(shrink)
        values = values * shrink
        has = batch.mask.sum(1) > 0
        answers, scores, tokens, total = totals(
            self.accelerator, has.sum(), batch.scores.sum(), batch.mask.sum(), (values * batch.mask).sum()
        )
        lift = scores / answers - total / tokens
        head.bias.add_(lift)
        return values + lift


def _stored_logprobs(batch: Batch, logprobs: Tensor) -> Tensor:
    """Of the start, which sampled the answers."""
    stored = logprobs.clone()
    for row, answer in enumerate(batch.answers):
        stored[row, : len(answer.tokens)] = torch.tensor(answer.old_logprobs, device=logprobs.device)
    return stored
