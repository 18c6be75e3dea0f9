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
and ``replay`` times that of demonstrations of the rounds before the loop
(:mod:`selfreward.plugins.optimizers.replay`). SPPO has no ``nll``: it holds the chosen answer to a target of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from selfreward import FileContext, Optimizer, Preference, TrainingContext, TrainingSet, option
from selfreward.plugins.optimizers.frozen_reference import FrozenReference, reference_model
from selfreward.plugins.optimizers.pairs import pair_rows
from selfreward.plugins.optimizers.replay import Replay, ReplayLoss, ReplayOptions, open_replay
from selfreward.plugins.optimizers.trl_trainer import lora_problems, tail_mean, train

if TYPE_CHECKING:
    from trl import DPOTrainer


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


class Dpo(Optimizer):
    """TRL's DPO trainer on tokens of ours."""

    reads = Preference
    makes = "policy"
    loss: ClassVar[str] = "sigmoid"

    config: DpoConfig

    def problems(self, context: FileContext) -> list[str]:
        """What would go wrong, before any work."""
        return lora_problems(context.model_config)

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures, over the last 20 % of the steps: ``loss``, ``reward_accuracy`` (share of pairs whose chosen answer rose
        above the rejected one) and ``chosen_change``, ``rejected_change`` (log-probability of an answer minus the
        reference's); ``steps``, ``rows``, ``too_long``; with ``replay`` also ``replay_loss`` and ``replay_rows``; where
        prompts are held out, also those of :func:`selfreward.plugins.optimizers.holdout.figures`.

        Raises:
            StageError: a pair is no pair, no row fits, there is nothing to replay, or training diverged.
        """
        from trl import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        chat, config = context.start.chat(), self.config
        collate: Any = DataCollatorForPreference(pad_token_id=chat.pad_id)
        replay = open_replay(len(training), chat, context, config)
        weights = {self.loss: 1.0} | ({"sft": config.nll} if getattr(config, "nll", 0) else {})
        arguments = {
            "loss_type": list(weights),
            "loss_weights": list(weights.values()),
            "beta": config.beta,
            "precompute_ref_log_probs": True,
            # our own ``dropout`` rules the model, and TRL's switch would silence that of the adapters too
            "disable_dropout": False,
        }
        tail, figures = train(
            _trainer_class(replay),
            DPOConfig,
            chat,
            pair_rows(training, chat),
            context,
            config,
            arguments,
            data_collator=replay.numbered(collate) if replay else collate,
            ref_model=reference_model(context),
        )
        figures |= replay.figures(tail) if replay else {}
        return figures | {
            "reward_accuracy": tail_mean(tail, "rewards/accuracies"),
            "chosen_change": tail_mean(tail, "rewards/chosen") / config.beta,
            "rejected_change": tail_mean(tail, "rewards/rejected") / config.beta,
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


def _trainer_class(replay: Replay | None) -> type[DPOTrainer]:
    from trl import DPOTrainer

    class IdsDPOTrainer(ReplayLoss, FrozenReference, DPOTrainer):
        reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

    IdsDPOTrainer.replay = replay
    return IdsDPOTrainer
