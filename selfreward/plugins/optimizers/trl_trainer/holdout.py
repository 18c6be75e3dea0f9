"""Early stopping: some prompts are kept out of training, and the weights that do best on them are the model.

The held-out prompts are those whose ids have the lowest hashes, so that they do not depend on seed or order. Every
``eval_steps`` steps, and after the last one, the loss is measured on their rows, with dropout off; the weights with the
lowest one win, and after ``patience`` measurements in a row that are no better training ends. The untrained start does
not compete.

The loss decides, not the share of the pairs in the right order: on n pairs the share moves in steps of 1/n (of 40 pairs
2.5 points, with a standard error of 8), so checkpoints tie and luck chooses; the loss of the same pairs tells them all
apart, and rises where the model grows sure of wrong orders.
Source: arXiv:2401.10020 §3.1.2, with another criterion: there, a checkpoint every 200 steps is compared pairwise with
the one before by its answers to 253 validation prompts.

The Trainer's ``load_best_model_at_end`` and ``EarlyStoppingCallback`` do not serve: they save the last step, from which
a resumed training would go one step too far, and count patience in a callback that a checkpoint does not bring back.
Here all there is to remember is ``best_metric`` and ``best_global_step``, which the Trainer's state holds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from selfreward import StageError, digest
from selfreward.plugins.optimizers.training.rows import Row

ACCURACIES = ("rewards/accuracies", "accuracy", "mean_token_accuracy")
"""What the trainers of preferences, of reward models and of demonstrations call it."""


def split(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and those held out: ``share`` of the prompts (column ``prompt_id``), at least one.

    Raises:
        StageError: all rows have the same prompt.
    """
    if not share:
        return rows, []
    prompts = sorted({row["prompt_id"] for row in rows}, key=lambda prompt: digest("holdout", prompt))
    held_out = set(prompts[: max(1, round(share * len(prompts)))])
    if len(held_out) == len(prompts):
        raise StageError(
            f"optimizer.holdout={share:g} of {len(prompts)} training prompts leaves nothing to train on; lower it, or "
            "set it to 0"
        )
    return (
        [row for row in rows if row["prompt_id"] not in held_out],
        [row for row in rows if row["prompt_id"] in held_out],
    )


class HeldOutLoss:
    """What a TRL trainer does in place of its own evaluation: every pair, answer, or answer token counts the same."""

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Mean ``eval_loss`` and ``eval_accuracy`` of the held-out rows: share of the pairs in the right order, of the
        answers on the right side, or of the answer tokens that are the likeliest.

        With several processes, the last batch is filled up from the first rows, as in training.
        """
        self.model.eval()
        totals = torch.zeros(3, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            batch = self._prepare_inputs(batch)
            of_answers = "labels" not in batch
            # a pair has two rows, unless its answers are trained on one by one
            rows = len(batch["label"]) if "label" in batch else len(batch["input_ids"]) / 2
            items = torch.tensor(rows if of_answers else (batch["labels"] != -100).sum().item())
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(self.model, batch)
            sums = torch.stack([loss.double() * items.to(loss.device), items.double().to(loss.device)])
            loss_sum, count = self.accelerator.reduce(sums, "sum").tolist()
            seen = self._metrics["eval"]
            share = next(seen[name] for name in ACCURACIES if name in seen)[-1]
            totals += torch.tensor([loss_sum, round(count * share), count], dtype=torch.float64)
        loss, right, count = totals.tolist()
        figures = {"eval_loss": loss / count, "eval_accuracy": right / count}
        self.log(dict(figures))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


class EarlyStop(TrainerCallback):
    """Asks for measurements, keeps a checkpoint of the best one, and ends training that gains nothing any more."""

    def __init__(self, eval_steps: int, patience: int) -> None:
        self.eval_steps, self.patience = eval_steps, patience

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_evaluate = state.global_step % self.eval_steps == 0 or state.global_step == state.max_steps

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        loss, step = given["metrics"]["eval_loss"], state.global_step
        if math.isfinite(loss) and (state.best_metric is None or loss < state.best_metric):
            state.best_metric, state.best_global_step = loss, step
            # the weights of the last step are at hand, and from its checkpoint one step too many would be trained
            control.should_save = step < state.max_steps
        elif self.patience and step - (state.best_global_step or 0) >= self.patience * self.eval_steps:
            control.should_training_stop, control.should_save = True, False


def take_best(trainer: Any) -> None:
    """Load the weights of the best measurement, unless they are the last ones."""
    best = trainer.state.best_global_step
    if best and best != trainer.state.global_step:
        trainer.state.best_model_checkpoint = str(Path(trainer.args.output_dir or "") / f"checkpoint-{best}")
        trainer._load_best_model()


def holdout_figures(trainer: Any, held_out: list[Row]) -> dict[str, float]:
    """``holdout_rows``, ``best_step``, ``holdout_loss`` and ``holdout_accuracy`` of it, ``stopped_early`` (0 or 1)."""
    if not held_out:
        return {}
    state = trainer.state
    best = state.best_global_step or state.global_step
    at_best = next(logs for logs in state.log_history if "eval_loss" in logs and logs["step"] == best)
    return {
        "holdout_rows": len(held_out),
        "holdout_loss": at_best["eval_loss"],
        "holdout_accuracy": at_best["eval_accuracy"],
        "best_step": best,
        "stopped_early": state.global_step < state.max_steps,
    }
