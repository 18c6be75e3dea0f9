"""Preference optimization: raise the chosen answer above the rejected one, measured against a frozen reference.

With log-ratios d = log pi(answer | prompt) - log ref(answer | prompt), summed over the answer's tokens:

- ``dpo``: -log sigmoid(beta (d_chosen - d_rejected)); arXiv:2305.18290 eq. 7, arXiv:2401.10020 §2.4
- ``ipo``: (d_chosen / |chosen| - d_rejected / |rejected| - 1 / (2 beta))^2; arXiv:2310.12036 eq. 17, whose sums TRL
  replaces by means per token (as IPO's authors confirmed), so its beta lives on another scale than DPO's
- ``rpo``: the loss of ``dpo`` with ``nll`` = 1; arXiv:2404.19733 eq. 1
- ``sppo``: (d_chosen - 1 / (2 beta))^2 + (d_rejected + 1 / (2 beta))^2; arXiv:2405.00675 eq. 4.7 with eta = 1 / beta
  and the chosen answer as one that always wins (P = 1), where the paper estimates P with a model of preferences

and on request ``nll`` times the chosen answers' negative log-likelihood per token, without which their probability
tends to fall (arXiv:2404.19733 eq. 1; TRL averages over all the chosen tokens of a batch, the paper answer by answer),
and ``replay`` times that of demonstrations of the rounds before the loop (``training/replay.py``). SPPO has no ``nll``:
it holds the chosen answer to a target of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward import Chat, Preference, TrainingSet, option
from selfreward.plugins.optimizers.training.replay import ReplayOptions
from selfreward.plugins.optimizers.training.rows import Row, pair_rows
from selfreward.plugins.optimizers.trl_trainer.frozen_reference import OWN_REFERENCE, FrozenReference
from selfreward.plugins.optimizers.trl_trainer.interface import Logs, Trl, tail_mean
from selfreward.plugins.optimizers.trl_trainer.offline import OfflineOptimizer


@dataclass
class DpoConfig(ReplayOptions):
    """Options of ``optimizer=dpo``."""

    beta: float = option(0.1, gt=0)
    """Strength of the pull towards the reference."""
    nll: float = option(0.0, ge=0)
    """Weight of the negative log-likelihood of the chosen answers, per token; 0 = off."""


@dataclass
class IpoConfig(DpoConfig):
    """Options of ``optimizer=ipo``."""

    beta: float = option(1.0, gt=0)
    """Strength of the pull towards the reference: the target of the log-ratio gap per token is 1 / (2 beta)."""


@dataclass
class RpoConfig(DpoConfig):
    """Options of ``optimizer=rpo``."""

    nll: float = option(1.0, gt=0)
    """Weight of the negative log-likelihood of the chosen answers, per token (the paper's alpha)."""


@dataclass
class SppoConfig(ReplayOptions):
    """Options of ``optimizer=sppo``."""

    beta: float = option(1e-3, gt=0)
    """1 / eta of the paper, there 1/1000: the targets of the log-ratios are 1 / (2 beta) and minus that."""


class Dpo(OfflineOptimizer):
    """TRL's DPO trainer on tokens of ours.

    Figures besides those that all share, over the last 20 % of the steps: ``reward_accuracy`` (share of pairs whose
    chosen answer rose above the rejected one) and ``chosen_change``, ``rejected_change`` (log-probability of an answer
    minus the reference's).
    """

    reads = Preference
    loss: ClassVar[str] = "sigmoid"
    config: DpoConfig

    def rows(self, training: TrainingSet, chat: Chat) -> Iterable[Row]:
        return pair_rows(training, chat)

    def trl(self) -> Trl:
        from trl import DPOConfig, DPOTrainer
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        class Trainer(FrozenReference, DPOTrainer):  # type: ignore[misc]
            reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

        return Trl(Trainer, DPOConfig, DataCollatorForPreference)

    def arguments(self) -> dict[str, Any]:
        weights = {self.loss: 1.0} | ({"sft": self.config.nll} if getattr(self.config, "nll", 0) else {})
        losses = {"loss_type": list(weights), "loss_weights": list(weights.values()), "beta": self.config.beta}
        return OWN_REFERENCE | losses

    def figures(self, tail: Sequence[Logs], rows: Sequence[Row]) -> dict[str, float]:
        return {
            "reward_accuracy": tail_mean(tail, "rewards/accuracies"),
            "chosen_change": tail_mean(tail, "rewards/chosen") / self.config.beta,
            "rejected_change": tail_mean(tail, "rewards/rejected") / self.config.beta,
        }


class Ipo(Dpo):
    """As :class:`Dpo`, with the loss of IPO."""

    loss = "ipo"
    config: IpoConfig


class Rpo(Dpo):
    """As :class:`Dpo`, never without ``nll``."""

    config: RpoConfig


class Sppo(Dpo):
    """As :class:`Dpo`, with the loss of SPPO."""

    loss = "sppo_hard"
    config: SppoConfig
