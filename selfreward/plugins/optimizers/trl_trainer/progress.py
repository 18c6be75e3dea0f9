"""What a trainer tells while it trains: steps and figures, and a checkpoint now and then; divergence ends it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from selfreward import TrainingContext
from selfreward.plugins.optimizers.training.divergence import diverged
from selfreward.plugins.optimizers.training.options import OptimizationOptions


class Progress(TrainerCallback):
    """Calls ``context.progress`` with the ``shown`` of the logged figures after every step.

    Checkpoints are ``checkpoint_steps`` apart, rounded up to a multiple of ``span``, the steps between which training
    cannot be taken up again.
    """

    def __init__(self, context: TrainingContext, options: OptimizationOptions, shown: Sequence[str], span: int) -> None:
        self.context, self.options, self.shown = context, options, shown
        self.every = math.ceil(options.checkpoint_steps / span) * span

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.log_history:  # training goes on
            self._show(state, next(logs for logs in reversed(state.log_history) if "loss" in logs))

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        # the trainer's own way would save the last step, too, and from there it trains one step too many
        due = self.every > 0 and state.global_step % self.every == 0
        control.should_save = due and state.global_step < state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        if not all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "grad_norm")):
            where = f"step {state.global_step} of {state.max_steps}"
            raise diverged(logs["loss"], logs.get("grad_norm", math.nan), where, self.options)
        self._show(state, logs)

    def _show(self, state: Any, logs: Mapping[str, float]) -> None:
        if state.is_world_process_zero:
            figures = {name: logs[name] for name in self.shown if logs.get(name) is not None}
            self.context.progress(state.global_step, state.max_steps, figures)
