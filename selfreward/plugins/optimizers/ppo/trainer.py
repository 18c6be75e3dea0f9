"""PPO's loop: answer, score, judge what each token was worth, and take clipped steps.

A batch depends on seed, batch number, processes and weights alone, so training that is killed goes on from its last
whole checkpoint and ends with the bytes of one that was not. Several processes (DDP) have a share of each batch's
prompts and an engine of their own; sums over tokens are taken over all of them, so a step on the same answers is the
same step. Which answers meet in a step depends on the number of processes.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor

from selfreward import StageError, TrainingContext, TrainingSet, digest
from selfreward.plugins.optimizers.ppo.actor_critic import Outputs
from selfreward.plugins.optimizers.ppo.answers import AnswerEncoder, Batch, by_length
from selfreward.plugins.optimizers.ppo.batches import Batches
from selfreward.plugins.optimizers.ppo.experience import Experience, ExperienceMaker
from selfreward.plugins.optimizers.ppo.kl_control import next_beta
from selfreward.plugins.optimizers.ppo.loss import policy_loss, value_loss
from selfreward.plugins.optimizers.ppo.models import load_actor_critic, load_reference, precision
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.ppo.scores import scale_scores
from selfreward.plugins.optimizers.ppo.state import State, read_checkpoint, write_checkpoint
from selfreward.plugins.optimizers.training.divergence import diverged, ran_away
from selfreward.plugins.optimizers.training.loading import context_length
from selfreward.plugins.optimizers.training.processes import rows_per_pass, totals
from selfreward.plugins.optimizers.training.replay import open_replay
from selfreward.plugins.optimizers.training.saving import save_model
from selfreward.plugins.optimizers.training.schedule import learning_rate
from selfreward.plugins.optimizers.training.threads import cpu_threads

LOG = "training.jsonl"
"""One line a batch, beside the weights."""
AVERAGED = (
    "reward", "kl", "beta", "loss", "value_loss", "explained_variance", "clip_fraction", "entropy", "length",
)  # fmt: skip
"""Figures that are means over the last 20 % of the batches."""


class PpoTrainer:
    """One training. Figures are of the whole batch, over all processes."""

    def __init__(self, training: TrainingSet, context: TrainingContext, config: PpoConfig) -> None:
        self.context, self.config = context, config
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.state = State(processes=self.accelerator.num_processes, beta=config.beta)
        self._check_layout()
        self.chat = context.start.chat()
        longest = min(config.max_length, context_length(context.start) or config.max_length)
        encoder = AnswerEncoder(self.chat, longest, config.missing_eos)
        self.batches = Batches(training, encoder, context, config, self.accelerator)
        self.state.counts = dict(self.batches.counts)
        self.learning_rate = learning_rate(config)
        self.replay = open_replay(0, self.chat, context, config.replay, config.max_length)
        self._load()

    # ------------------------------------------------------------------ before

    def _check_layout(self) -> None:
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        known = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
        if self.accelerator.distributed_type not in known:
            raise StageError(
                f"optimizer=ppo trains whole models on every GPU (DDP), not under {self.accelerator.distributed_type}: "
                "set launch.processes= without launch.config="
            )
        self.per_pass = rows_per_pass(self.config)
        self.per_step = self.config.batch_size // self.world

    def _load(self) -> None:
        """Models, AdamW and schedule; what a killed training has left is taken up."""
        config, context = self.config, self.context
        model = load_actor_critic(context, config)
        self.device = self.accelerator.device
        reference = load_reference(context)
        reference = reference.to(self.device) if reference is not None else None
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in trained if w.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},  # norms and biases
        ]
        betas = (config.adam_beta1, config.adam_beta2)
        adamw = torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.adam_eps, fused=True)
        self.model, self.adamw = self.accelerator.prepare(model, adamw)
        self.bare = self.accelerator.unwrap_model(self.model)
        self.precision = precision(context.start)
        self.experience_maker = ExperienceMaker(
            self.bare, reference, context, config, self.accelerator, self.chat.pad_id
        )
        if self.batches.stored:
            with cpu_threads(config.threads, self.bare.policy):
                self.batches.add_old_logprobs(self.experience_maker.logprobs)
        found = read_checkpoint(context.work, self._trained(), self.adamw.optimizer, self.accelerator)
        if found and found.processes != self.world:
            raise StageError(
                f"training was begun by {found.processes} processes, which share batches in their own way, and cannot "
                f"go on with {self.world}: set launch.processes={found.processes}, or delete {context.work}"
            )
        if found:
            self.state = found
            self._show(found.logs[-1])

    # ------------------------------------------------------------------ the loop

    def train(self) -> None:
        """All batches that are still to be done."""
        with cpu_threads(self.config.threads, self.bare.policy):
            while self.state.batch < self.batches.count:
                self.model.eval()
                batch = self.batches.take(self.state.batch, self.bare.policy)
                figures = self._train_batch(batch)
                self.state.batch += 1
                self._log(figures)
                self._checkpoint()

    def _train_batch(self, batch: Batch) -> dict[str, float]:
        """Take the steps of one batch; its figures. One whose scores are all equal teaches nothing."""
        figures = scale_scores(batch, self.state, self.config, self.accelerator, self._where())
        if not figures["reward_sd"]:
            self.state.flat_batches += 1
            return figures
        experience = self.experience_maker.make(batch, self.state, stored=bool(self.batches.stored))
        figures |= self._check_kl(batch, experience)
        figures |= self._steps(batch, experience)
        target, horizon = self.config.kl_target, self.config.kl_horizon
        self.state.beta = next_beta(self.state.beta, figures["kl"], round(figures["answers"]), target, horizon)
        return figures

    def _check_kl(self, batch: Batch, experience: Experience) -> dict[str, float]:
        """Where the policy stands before the updates.

        Raises:
            StageError: it has gone further from the reference than ``max_kl``.
        """
        has = batch.mask.sum(1) > 0
        answers, kl = self._sum(has.sum(), experience.kl.sum())
        figures = {
            "kl": kl / answers,
            "explained_variance": self.experience_maker.explained_variance(batch, experience),
        }
        if not math.isfinite(kl) or (self.config.max_kl and figures["kl"] > self.config.max_kl):
            ways_out = (
                f"raise optimizer.beta (now {self.state.beta:.3g}), set optimizer.kl_target, lower optimizer.lr (now "
                f"{self.config.lr:g})"
            )
            so_far = self.state.so_far()
            raise ran_away(figures["kl"], self.config.max_kl, self._where(), self.context, so_far, ways_out)
        return figures

    # ------------------------------------------------------------------ steps

    def _steps(self, batch: Batch, experience: Experience) -> dict[str, float]:
        """Passes of clipped steps, until the policy has moved too far from the one that sampled."""
        rows, metrics = len(batch.answers), list[dict[str, float]]()
        planned = self.config.ppo_epochs * math.ceil(rows / self.per_step)
        self.model.train()
        torch.manual_seed(int(digest(self.context.seed, "dropout", self.state.batch, self.rank), 16) % 2**31)
        for epoch in range(self.config.ppo_epochs):
            order = list(range(rows))
            random.Random(digest(self.context.seed, "rows", self.state.batch, epoch, self.rank)).shuffle(order)
            for number, start in enumerate(range(0, rows, self.per_step)):
                # steps that were left out count as taken
                taken = (
                    self.state.batch + (epoch * math.ceil(rows / self.per_step) + number) / planned
                ) / self.batches.count
                for group in self.adamw.param_groups:
                    group["lr"] = self.learning_rate(taken)
                step = self._step(batch, experience, order[start : start + self.per_step], epoch)
                if step.pop("stop", 0.0):
                    return _mean(metrics) | {"stopped_early": 1.0}
                metrics += [step] if step else []
                self.state.steps += bool(step)
        return _mean(metrics) | {"stopped_early": 0.0}

    def _step(self, batch: Batch, experience: Experience, rows: Sequence[int], epoch: int) -> dict[str, float]:
        """One optimizer step on some answers; nothing where none of them has a score."""
        tokens = self._sum(batch.mask[list(rows)].sum())[0]
        if not tokens:
            return {}
        passes = by_length(batch, rows, self.per_pass)
        replayed = self._replayed(passes, epoch, len(batch.answers))
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)
        for number, some in enumerate(passes):
            last = number == len(passes) - 1
            with nullcontext() if last or self.world == 1 else self.accelerator.no_sync(self.model), self.precision():
                loss, found = self._loss(batch, experience, some, tokens, replayed[number] if replayed else None)
                self.accelerator.backward(loss * self.world)  # DDP takes the mean over processes
                sums += found
        mean, policy, value, clipped, kl, entropy = self._sum(*sums)
        if self.config.stop_kl and kl / tokens > self.config.stop_kl:
            self.adamw.zero_grad()
            return {"stop": 1.0}
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            where = f"step {self.state.steps + 1} ({self._where()})"
            raise diverged(mean, norm, where, self.config, f"{self.state.so_far()}; ")
        self.adamw.step()
        self.adamw.zero_grad()
        return {
            "loss": mean, "policy_loss": policy, "value_loss": value, "clip_fraction": clipped / tokens,
            "update_kl": kl / tokens, "entropy": entropy / tokens, "grad_norm": norm,
        }  # fmt: skip

    def _loss(
        self, batch: Batch, experience: Experience, rows: list[int], tokens: float, replayed: tuple[Any, float] | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of a pass, and its sums: loss, policy and value loss, clipped tokens, KL, entropy."""
        config, width = self.config, batch.columns(rows)
        old, values, advantages, returns = (
            getattr(experience, name)[rows, :width] for name in ("old_logprobs", "values", "advantages", "returns")
        )
        sequences = batch.sequences(rows, self.chat.pad_id)
        outputs: Outputs = self.model(sequences, replayed[0] if replayed else None)
        mask = sequences.mask
        policy = policy_loss(outputs.logprobs, old, advantages, mask, config.clip, tokens)
        assert outputs.entropy is not None
        value = value_loss(outputs.values, values, returns, mask, config.value_clip, tokens)
        entropy = (outputs.entropy * mask).sum()
        loss = policy.loss + config.value_coef * value - config.entropy_coef * entropy / tokens
        if replayed:
            assert outputs.replay_logprob is not None
            loss = loss - config.replay * outputs.replay_logprob / replayed[1]
        metrics = (loss, policy.loss, value, policy.clipped, policy.kl, entropy)
        return loss, torch.stack([figure.detach().double() for figure in metrics])

    def _replayed(self, passes: list[list[int]], epoch: int, rows: int) -> list[tuple[Any, float]]:
        """Demonstrations for each pass, and the answer tokens of those of all passes and processes."""
        if self.replay is None:
            return []
        before = (self.state.batch * self.config.ppo_epochs + epoch) * rows
        found = []
        for some in passes:
            numbers = [(before + row) * self.world + self.rank for row in some]
            found.append({name: t.to(self.device) for name, t in self.replay.batch(numbers, 0).items()})
        tokens = self._sum(sum((batch["labels"] != -100).sum() for batch in found))[0]
        return [(batch, tokens) for batch in found]

    # ------------------------------------------------------------------ sums, words, files

    def _sum(self, *values: Tensor | float) -> list[float]:
        return totals(self.accelerator, *values)

    def _where(self) -> str:
        return f"batch {self.state.batch + 1} of {self.batches.count}"

    def _log(self, figures: Mapping[str, float]) -> None:
        lr = self.adamw.param_groups[0]["lr"]
        self.state.logs.append({"batch": self.state.batch, "step": self.state.steps, **figures, "lr": lr})
        self._show(figures)

    def _show(self, figures: Mapping[str, float]) -> None:
        if self.accelerator.is_main_process:
            shown = {name: figures[name] for name in ("reward", "kl") if name in figures}
            self.context.progress(self.state.batch, self.batches.count, shown)

    def _checkpoint(self) -> None:
        """After a batch, every ``checkpoint_steps`` steps or more; none after the last."""
        state, every = self.state, self.config.checkpoint_steps
        if not every or state.steps - state.saved_at < every or state.batch == self.batches.count:
            return
        state.saved_at = state.steps
        if self.accelerator.is_main_process:
            write_checkpoint(self.context.work, state, self._trained(), self.adamw.optimizer)
        self.accelerator.wait_for_everyone()

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight.data for name, weight in self.bare.named_parameters() if weight.requires_grad}

    def save(self) -> None:
        """The policy as a whole checkpoint, and the log."""
        save_model(self.bare.policy, self.accelerator, self.chat, self.context, self.config.lr)
        if self.accelerator.is_main_process:
            lines = "".join(f"{json.dumps(log)}\n" for log in self.state.logs)
            (self.context.out / LOG).write_text(lines, encoding="utf-8")

    def figures(self) -> dict[str, float]:
        """See :meth:`selfreward.plugins.optimizers.ppo.Ppo.update`."""
        logs, state = self.state.logs, self.state
        tail = logs[-max(1, len(logs) // 5) :]
        known = {name: [log[name] for log in tail if name in log and math.isfinite(log[name])] for name in AVERAGED}
        means = {name: math.fsum(values) / len(values) for name, values in known.items() if values}
        return {
            **means,
            "reward_gain": means["reward"] - logs[0]["reward"],
            "batches": len(logs),
            "steps": state.steps,
            "flat_batches": state.flat_batches,
            "stopped_early": sum(log.get("stopped_early", 0.0) for log in logs),
            **state.counts,
        }


def _mean(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: math.fsum(step[name] for step in steps) / len(steps) for name in steps[0]} if steps else {}
