"""Preference optimization without a reference: the policy's own log-probabilities per token are the reward.

With p = log pi(answer | prompt) / |answer|:

- ``simpo``: -log sigmoid(beta (p_chosen - p_rejected) - gamma); arXiv:2405.14734 eq. 6
- ``orpo``: -p_chosen - beta log sigmoid(log odds(p_chosen) - log odds(p_rejected)) with odds(p) = e^p / (1 - e^p), and
  beta for the paper's lambda; arXiv:2403.07691 eq. 2-7. Its imitation of the chosen answer leaves the prompt out, as
  the paper's formula does (its code, and TRL's, imitate the prompt too)

``simpo`` takes on request ``nll`` times the chosen answers' negative log-likelihood -p_chosen, without which it may
fall (CPO-SimPO), and both ``replay`` (:mod:`selfreward.plugins.optimizers.training.replay`).

The losses are those of TRL's experimental CPO and ORPO trainers. They stand here on its DPO trainer, since the
experimental ones tokenise by themselves, build the logits of all tokens, and may go without notice. What is left of DPO
is the loop: no reference is made or asked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfreward import Chat, Preference, TrainingSet, option
from selfreward.plugins.optimizers.training.replay import ReplayOptions
from selfreward.plugins.optimizers.training.rows import Row, pair_rows
from selfreward.plugins.optimizers.trl_trainer.frozen_reference import OWN_REFERENCE
from selfreward.plugins.optimizers.trl_trainer.interface import Logs, Trl, tail_mean
from selfreward.plugins.optimizers.trl_trainer.offline import OfflineOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


LOGGED = {
    "reward_accuracy": "rewards/accuracies",
    "chosen_log_prob": "logps/chosen",
    "rejected_log_prob": "logps/rejected",
}
"""Figures, and what the trainer logs them as."""


@dataclass
class ReferenceFreeOptions(ReplayOptions):
    """Options of an optimizer that has no reference."""

    def problems(self) -> list[str]:
        """A reference that would be ignored."""
        asked = self.reference != "start"
        return [*super().problems(), *["reference: this loss has none; leave it at start"] * asked]


@dataclass
class SimpoConfig(ReferenceFreeOptions):
    """Options of ``optimizer=simpo``."""

    beta: float = option(2.0, gt=0)
    """Scale of the rewards; the paper's are 2.0 to 2.5."""
    gamma: float = option(1.0, ge=0)
    """Margin by which the chosen answer's reward should exceed the rejected one's; the paper's are 0.3 to 1.6."""
    nll: float = option(0.0, ge=0)
    """Weight of the negative log-likelihood of the chosen answers, per token; 0 = off."""


@dataclass
class OrpoConfig(ReferenceFreeOptions):
    """Options of ``optimizer=orpo``."""

    beta: float = option(0.1, gt=0)
    """Weight of the odds ratio beside the imitation of the chosen answers (the paper's lambda)."""


class ReferenceFree(OfflineOptimizer):
    """A loss of two log-probabilities per token, in TRL's DPO trainer, on tokens of ours.

    Figures besides those that all share, over the last 20 % of the steps: ``reward_accuracy`` (share of pairs whose
    chosen answer is likelier per token), and ``chosen_log_prob`` and ``rejected_log_prob`` (per token).
    """

    reads = Preference

    @abstractmethod
    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss of each pair [pairs], of the answers' mean log-probabilities per token [pairs]."""

    def rows(self, training: TrainingSet, chat: Chat) -> Iterable[Row]:
        return pair_rows(training, chat)

    def trl(self) -> Trl:
        from trl import DPOConfig, DPOTrainer
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        trainer = type("ReferenceFree", (ReferenceFreeLoss, DPOTrainer), {"pair_losses": staticmethod(self.losses)})
        return Trl(trainer, DPOConfig, DataCollatorForPreference)

    def arguments(self) -> dict[str, Any]:
        return OWN_REFERENCE

    def figures(self, tail: Sequence[Logs], rows: Sequence[Row]) -> dict[str, float]:
        return {ours: tail_mean(tail, name) for ours, name in LOGGED.items()}


class Simpo(ReferenceFree):
    """SimPO."""

    config: SimpoConfig

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        rewards = self.config.beta * (chosen - rejected)
        return -logsigmoid(rewards - self.config.gamma) - self.config.nll * chosen


class Orpo(ReferenceFree):
    """ORPO."""

    config: OrpoConfig

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import logsigmoid

        # TRL has another form for small probabilities, whose gradient is NaN at those next to 1
        log_odds = [p - torch.log(-torch.expm1(p)) for p in (chosen, rejected)]
        return -chosen - self.config.beta * logsigmoid(log_odds[0] - log_odds[1])


class ReferenceFreeLoss:
    """What TRL's DPO trainer does in place of its own loss, without a reference, on rows that are token ids already."""

    pair_losses: Callable[[Tensor, Tensor], Tensor]

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _compute_loss(self: Any, model: Any, inputs: Any, return_outputs: bool) -> Any:
        import torch

        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        routed = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(**given, **routed, labels=labels, use_cache=False, fused_lm_head=True)
        chosen, rejected = (outputs.log_probs.sum(1) / (labels != -100).sum(1)).chunk(2)
        logged = self.accelerator.gather(torch.stack([chosen > rejected, chosen, rejected]).detach().T).T
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in zip(LOGGED.values(), logged, strict=True):
            metrics[name].append(values.mean().item())
        loss = self.pair_losses(chosen, rejected).mean()
        return loss + self.router_aux_loss_coef * outputs.aux_loss if self.aux_loss_enabled else loss
