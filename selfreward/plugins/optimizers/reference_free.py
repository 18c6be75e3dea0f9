"""Preference optimization without a reference: the policy's own log-probabilities per token are the reward.

With p = log pi(answer | prompt) / |answer|:

- ``simpo``: -log sigmoid(beta (p_chosen - p_rejected) - gamma); arXiv:2405.14734 eq. 6
- ``orpo``: -p_chosen - beta log sigmoid(log odds(p_chosen) - log odds(p_rejected)) with odds(p) = e^p / (1 - e^p), and
  beta for the paper's lambda; arXiv:2403.07691 eq. 2-7. Its imitation of the chosen answer leaves the prompt out, as
  the paper's formula does (its code, and TRL's, imitate the prompt too)

``simpo`` takes on request ``nll`` times the chosen answers' negative log-likelihood -p_chosen, without which it may
fall (CPO-SimPO), and both ``replay`` (:mod:`selfreward.plugins.optimizers.replay`).

The losses are those of TRL's experimental CPO and ORPO trainers. They stand here on its DPO trainer, since the
experimental ones tokenise by themselves, build the logits of all tokens, and may go without notice. What is left of DPO
is the loop: no reference is made or asked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfreward import FileContext, Optimizer, Preference, TrainingContext, TrainingSet, option
from selfreward.plugins.optimizers.pairs import pair_rows
from selfreward.plugins.optimizers.replay import Replay, ReplayLoss, ReplayOptions, open_replay
from selfreward.plugins.optimizers.trl_trainer import lora_problems, tail_mean, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from trl import DPOTrainer


@dataclass
class ReferenceFreeOptions(ReplayOptions):
    """Options of an optimizer that has no reference."""

    def problems(self) -> list[str]:
        """Rules between options."""
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


class ReferenceFree(Optimizer):
    """A loss of two log-probabilities per token, in TRL's DPO trainer, on tokens of ours."""

    reads = Preference
    makes = "policy"

    def problems(self, context: FileContext) -> list[str]:
        """What would go wrong, before any work."""
        return lora_problems(context.model_config)

    @abstractmethod
    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss of each pair, of the answers' mean log-probabilities per token."""

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures, over the last 20 % of the steps: ``loss``, ``reward_accuracy`` (share of pairs whose chosen answer is
        likelier per token) and ``chosen_log_prob``, ``rejected_log_prob`` (per token); ``steps``, ``rows``,
        ``too_long``; with ``replay`` also ``replay_loss`` and ``replay_rows``; where prompts are held out, also those
        of :func:`selfreward.plugins.optimizers.holdout.figures`.

        Raises:
            StageError: a pair is no pair, no row fits, there is nothing to replay, or training diverged.
        """
        from trl import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        chat = context.start.chat()
        collate: Any = DataCollatorForPreference(pad_token_id=chat.pad_id)
        replay = open_replay(len(training), chat, context, self.config)
        tail, figures = train(
            _trainer_class(self.losses, replay),
            DPOConfig,
            chat,
            pair_rows(training, chat),
            context,
            self.config,
            # with log-probabilities "computed beforehand" no reference is loaded
            {"precompute_ref_log_probs": True, "disable_dropout": False},
            data_collator=replay.numbered(collate) if replay else collate,
        )
        figures |= replay.figures(tail) if replay else {}
        return figures | {
            "reward_accuracy": tail_mean(tail, "rewards/accuracies"),
            "chosen_log_prob": tail_mean(tail, "logps/chosen"),
            "rejected_log_prob": tail_mean(tail, "logps/rejected"),
        }


class Simpo(ReferenceFree):
    """SimPO."""

    config: SimpoConfig

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Logistic, with a margin."""
        from torch.nn.functional import logsigmoid

        rewards = self.config.beta * (chosen - rejected)
        return -logsigmoid(rewards - self.config.gamma) - self.config.nll * chosen


class Orpo(ReferenceFree):
    """ORPO."""

    config: OrpoConfig

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Imitation, and the log of the odds ratio."""
        import torch
        from torch.nn.functional import logsigmoid

        # TRL has another form for small probabilities, whose gradient is NaN at those next to 1
        log_odds = [p - torch.log(-torch.expm1(p)) for p in (chosen, rejected)]
        return -chosen - self.config.beta * logsigmoid(log_odds[0] - log_odds[1])


def _trainer_class(losses: Callable[[Tensor, Tensor], Tensor], replay: Replay | None) -> type[DPOTrainer]:
    import torch
    from trl import DPOTrainer

    class ReferenceFreeTrainer(ReplayLoss, DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            """The rows are token ids already."""
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            """There is no reference."""
            return dataset

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            """In place of DPO's."""
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            routed = {"output_router_logits": True} if self.aux_loss_enabled else {}
            outputs = model(**given, **routed, labels=labels, use_cache=False, fused_lm_head=True)
            per_token = outputs.log_probs.sum(1) / (labels != -100).sum(1)
            chosen, rejected = per_token.chunk(2)
            told = torch.stack([chosen > rejected, chosen, rejected]).detach()
            metrics = self._metrics["train" if self.model.training else "eval"]
            for name, values in zip(
                ("rewards/accuracies", "logps/chosen", "logps/rejected"), self.accelerator.gather(told.T).T, strict=True
            ):
                metrics[name].append(values.mean().item())
            loss = losses(chosen, rejected).mean()
            return loss + self.router_aux_loss_coef * outputs.aux_loss if self.aux_loss_enabled else loss

    ReferenceFreeTrainer.replay = replay
    return ReferenceFreeTrainer
