"""Policy gradients without a value function: an answer is measured against the others to the same prompt.

The policy answers a prompt n times, the round's judge scores the answers, and of answer i with score r_i are learnt

- ``grpo``: A_i = (r_i - mean r) / (sd r + 1e-4), token by token:
  -min(q A, clip(q, 1 - epsilon, 1 + epsilon) A) + beta (ref/pi - log ref/pi - 1); arXiv:2402.03300 §4.1, eq. 3 and 4
- ``rloo``: R_i = r_i - beta sum(log pi - log ref), A_i = R_i - mean of the other R_j, for the answer as a whole:
  -min(q A, clip(q, 1 - epsilon, 1 + epsilon) A); arXiv:2402.14740; the clip is TRL's and does nothing
  where answers are learnt from once

with the ratio q of the policy to the one that sampled. Log-probabilities are taken at the sampling temperature. The
reference is always ``context.reference``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from selfreward import Chat, FileContext, Instruction, Prompt, StageError, TrainingContext, TrainingSet, option
from selfreward.plugins.optimizers.training.divergence import ran_away
from selfreward.plugins.optimizers.training.loading import context_length, load_model
from selfreward.plugins.optimizers.training.optimizer import GradientOptimizer
from selfreward.plugins.optimizers.training.options import OptimizationOptions
from selfreward.plugins.optimizers.trl_trainer.group_rollouts import COUNTS, GroupRollouts, without_vllm

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

HOPELESS = 3
"""Batches of answers after which training ends that has seen no two scores differ in any group."""

LOGGED = {
    "loss": "loss",
    "reward": "reward",
    "kl": "kl",
    "clip_fraction": "clip_ratio/region_mean",
    "entropy": "entropy",
    "length": "completions/mean_length",
}
"""Figures, and what the trainer logs them as."""


class Loss(Enum):
    """How the losses of an answer's tokens are added up."""

    grpo = "grpo"
    dr_grpo = "dr_grpo"
    dapo = "dapo"
    bnpo = "bnpo"


class Scale(Enum):
    """What an advantage is divided by."""

    group = "group"
    batch = "batch"
    none = "none"


@dataclass
class GroupOptions(OptimizationOptions):
    """Options of both."""

    epochs: float = option(1.0, gt=0)
    """Passes over the prompts."""
    batch_size: int = option(16, ge=1)
    """Prompts per optimizer step, ``sampler.n`` answers each, over all GPUs and accumulated passes together."""
    num_iterations: int = option(1, ge=1)
    """Optimizer steps on a batch of answers before the next prompts are answered."""
    epsilon: float = option(0.2, gt=0)
    """Clip range of the ratio of the policy to the one that sampled; idle where ``num_iterations`` is 1."""
    mask_truncated: bool = False
    """Leave answers that were cut off at the token limit out of the loss; their scores count in the baseline."""
    max_kl: float = option(100.0, ge=0)
    """KL to the reference, in nats an answer, beyond which the run is stopped; 0 = never. Needs ``beta`` above 0."""
    checkpoint_steps: int = option(200, ge=0, execution=True)
    """Optimizer steps between checkpoints, rounded up to a multiple of ``num_iterations``; 0 = none."""


@dataclass
class GrpoConfig(GroupOptions):
    """Options of ``optimizer=grpo``."""

    beta: float = option(0.04, ge=0)
    """Weight of the KL to the reference in the loss; 0 = no reference is kept."""
    unbiased_kl: bool = False
    """Multiply the KL by the ratio q, which makes its gradient that of the reverse KL (arXiv:2512.02556)."""
    loss_type: Loss = Loss.grpo
    """Mean over: grpo an answer's tokens; dapo, bnpo a batch's, a pass's tokens; dr_grpo: sum over 512 (a constant)."""
    scale_rewards: Scale = Scale.group
    """Advantages are divided by the scores' standard deviation in the group, in the batch, or by nothing (none)."""


@dataclass
class RlooConfig(GroupOptions):
    """Options of ``optimizer=rloo``."""

    beta: float = option(0.05, ge=0)
    """Points of score that a nat of KL to the reference costs an answer; 0 = no reference is kept."""


class Grpo(GradientOptimizer):
    """TRL's GRPO trainer on answers of ours."""

    reads = Instruction
    unfiltered = True
    least_answers = 2
    config: GrpoConfig

    def problems(self, context: FileContext) -> list[str]:
        found, dropout = super().problems(context), context.model_config.lora.dropout
        if context.model_config.lora.r and dropout:
            found.append(
                f"model.lora.dropout={dropout:g}: the policy is compared with itself token by token, and dropout would "
                "change it by chance; set it to 0"
            )
        return found

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures: over the last 20 % of the steps ``loss``, ``reward`` (mean score of the answers), ``kl`` (nats an
        answer, to the reference), ``clip_fraction`` (of GRPO's tokens, RLOO's answers), ``entropy`` (nats a token),
        ``length`` (tokens); ``reward_start`` over the first 20 %; over all ``flat_groups`` (share of the prompts whose
        answers' scores were all equal), and the counts ``steps``, ``rows`` (prompts), ``too_long`` (prompts that leave
        no room for an answer), ``answers``, ``votes``, ``unreadable``, ``unscored``, ``cut_off`` and ``characters``.

        Raises:
            StageError: too few prompts, no scores that differ, KL that explodes, or training diverged; nothing is
                saved.
        """
        from datasets import Dataset

        from selfreward.plugins.optimizers.trl_trainer.run import run_trainer, save_trained

        chat, config, rollouts = context.start.chat(), self.config, context.rollouts
        assert rollouts is not None, "rows of prompts come with rollouts"
        prompts, too_long = _prompts(training, chat, context, config.batch_size)
        switched_off = context.start.config.lora.r and context.reference.key == context.start.key
        trainer_class, config_class = self.trl()
        trainer = run_trainer(
            type(trainer_class.__name__, (GroupRollouts, trainer_class), {}),
            config_class(**self.arguments(context, rollouts.n)),
            load_model(context.start),
            chat,
            context,
            config,
            callbacks=[_watch(context, config, rollouts.n)],
            shown=("reward", "kl"),
            span=config.num_iterations,
            train_dataset=Dataset.from_list([{"prompt": name} for name in prompts]),
            rollouts=rollouts,
            prompts=prompts,
            stop_ids=sorted(chat.stop_ids),
            reference=load_model(context.reference) if config.beta and not switched_off else None,
            beta=config.beta,
        )
        save_trained(trainer, chat, context)
        return {**_figures(trainer), "rows": len(prompts), "too_long": too_long}

    def trl(self) -> tuple[Any, Any]:
        """TRL's trainer, and the class of its arguments."""
        with without_vllm():
            from trl import GRPOConfig, GRPOTrainer
        return GRPOTrainer, GRPOConfig

    def arguments(self, context: TrainingContext, n: int) -> dict[str, Any]:
        """The trainer's arguments for n answers a prompt."""
        from selfreward.plugins.optimizers.trl_trainer.arguments import trainer_arguments

        config, common = self.config, trainer_arguments(self.config, context)
        return common | {
            "per_device_train_batch_size": n * common["per_device_train_batch_size"],
            "num_generations": n,
            "num_iterations": config.num_iterations,
            "temperature": context.temperature,
            "epsilon": config.epsilon,
            "mask_truncated_completions": config.mask_truncated,
            "beta": 0.0,  # ours comes with the reference
            **self.loss_arguments(),
        }

    def loss_arguments(self) -> dict[str, Any]:
        """What this loss adds."""
        config = self.config
        return {
            "loss_type": config.loss_type.value,
            "scale_rewards": config.scale_rewards.value,
            "use_bias_correction_kl": config.unbiased_kl,
            "max_completion_length": 512,  # for dr_grpo alone: how long answers may be is the sampler's business
        }


class Rloo(Grpo):
    """TRL's RLOO trainer on answers of ours."""

    config: RlooConfig

    def trl(self) -> tuple[Any, Any]:
        with without_vllm():
            from trl import RLOOConfig, RLOOTrainer
        return RLOOTrainer, RLOOConfig

    def loss_arguments(self) -> dict[str, Any]:
        return {}


def _prompts(
    training: TrainingSet, chat: Chat, context: TrainingContext, batch_size: int
) -> tuple[dict[str, tuple[Prompt, list[int]]], int]:
    """The prompts that leave room for an answer, by id, with their tokens, and how many do not.

    Raises:
        StageError: they do not fill a batch.
    """
    room = context_length(context.start) or math.inf
    every = {row.prompt_id: (row.as_prompt(), chat.encode(row.prompt)) for row in training}
    kept = {name: prompt for name, prompt in every.items() if len(prompt[1]) < room}
    if len(kept) < batch_size:
        raise StageError(
            f"{len(kept)} prompts do not fill a batch of optimizer.batch_size={batch_size} (another "
            f"{len(every) - len(kept)} were left out, as they fill the model's context of {room} tokens): lower it, or "
            "make more prompts (prompt_generator.n=)"
        )
    return kept, len(every) - len(kept)


def _watch(context: TrainingContext, options: Any, n: int) -> TrainerCallback:
    """Ends training that learns nothing, or runs away from the reference."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            batches = [logs for logs in state.log_history if "flat_groups" in logs]
            if all(logs["flat_groups"] == 1 for logs in batches) and (
                len(batches) >= HOPELESS or state.global_step == state.max_steps
            ):
                raise StageError(_hopeless(batches, context.temperature, n))
            kl = given["logs"].get("kl") or 0.0
            if options.max_kl and not kl <= options.max_kl:
                where = f"step {state.global_step} of {state.max_steps}"
                ways_out = f"raise optimizer.beta (now {options.beta:g}), lower optimizer.lr (now {options.lr:g})"
                raise ran_away(kl, options.max_kl, where, context, _trend(batches), ways_out)

    return Watch()


def _hopeless(batches: Sequence[Mapping[str, float]], temperature: float, n_answers: int) -> str:
    answers, unscored, cut_off = (
        round(sum(logs[name] for logs in batches)) for name in ("answers", "unscored", "cut_off")
    )
    return (
        f"no prompt of the first {len(batches)} batches had two answers with different scores, so there is nothing to "
        f"learn: of {answers} answers {unscored} could not be scored and {cut_off} were cut off at the token limit; "
        f"{_trend(batches)}; ways out: a judge or rubric that tells answers apart (judge=, judge.rubric=), raise "
        f"sampler.temperature (now {temperature:g}), raise sampler.n (now {n_answers})"
    )


def _trend(batches: Sequence[Mapping[str, float]]) -> str:
    rewards = [f"{logs['reward']:.3g}" for logs in batches if logs.get("reward") is not None]
    return f"the mean score went from {rewards[0]} to {rewards[-1]}" if rewards else "there is no mean score"


def _figures(trainer: Trainer) -> dict[str, float]:
    steps = [logs for logs in trainer.state.log_history if "loss" in logs]
    some = max(1, len(steps) // 5)
    figures = {name: _mean(steps[-some:], logged) for name, logged in LOGGED.items()}
    figures |= {"reward_start": _mean(steps[:some], "reward"), "flat_groups": _mean(steps, "flat_groups")}
    counts = {name: math.fsum(logs.get(name) or 0 for logs in steps) for name in COUNTS}
    known = {name: value for name, value in figures.items() if value is not None}
    return {**known, "steps": len(steps), **counts}


def _mean(logs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean of a figure over the steps that have it: a batch of answers is logged once."""
    values = [step[name] for step in logs if step.get(name) is not None]
    return math.fsum(values) / len(values) if values else None
