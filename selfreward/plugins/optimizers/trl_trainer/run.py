"""One training by a TRL trainer, taken up from its last whole checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl.trainer import utils

from selfreward import Chat, TrainingContext
from selfreward.plugins.optimizers.training.checkpoints import checkpoint_to_resume
from selfreward.plugins.optimizers.training.loading import load_model, lora_config
from selfreward.plugins.optimizers.training.options import OptimizationOptions, TrainingOptions
from selfreward.plugins.optimizers.training.processes import rows_per_pass
from selfreward.plugins.optimizers.training.replay import Replay
from selfreward.plugins.optimizers.training.rows import Row, fitting
from selfreward.plugins.optimizers.training.saving import save_model
from selfreward.plugins.optimizers.training.threads import cpu_threads
from selfreward.plugins.optimizers.trl_trainer.arguments import trainer_arguments
from selfreward.plugins.optimizers.trl_trainer.frozen_reference import FrozenReference, reference_model
from selfreward.plugins.optimizers.trl_trainer.holdout import EarlyStop, HeldOutLoss, holdout_figures, split, take_best
from selfreward.plugins.optimizers.trl_trainer.interface import Logs, Trl, tail_mean
from selfreward.plugins.optimizers.trl_trainer.progress import Progress
from selfreward.plugins.optimizers.trl_trainer.replay_loss import ReplayLoss, numbered
from selfreward.plugins.optimizers.trl_trainer.silence import SilentTrainer


def train_rows(
    trl: Trl,
    rows: Iterable[Row],
    chat: Chat,
    context: TrainingContext,
    options: TrainingOptions,
    arguments: Mapping[str, Any],
    *,
    replay: Replay | None = None,
    model: PreTrainedModel | None = None,
    pad_id: int | None = None,
) -> tuple[Sequence[Logs], dict[str, float]]:
    """Train ``context.start`` on rows and save the checkpoint into ``context.out``.

    Args:
        chat: the start's tokenizer, saved with the weights.
        arguments: what this loss adds to the trainer's arguments.
        model, pad_id: the start as this loss loads it, and what rows are padded with; None = as everywhere.

    Returns:
        What the trainer logged in each of the last 20 % of the steps (until the best, where prompts are held out), and
        the figures that every such optimizer reports.

    Raises:
        StageError: no row fits, or training diverged.
    """
    frozen = issubclass(trl.trainer, FrozenReference)
    reference: dict[str, Any] = {"ref_model": reference_model(context)} if frozen else {}
    model = load_model(context.start, options.dropout) if model is None else model
    kept, too_long = fitting(rows, options.max_length, context.start)
    kept, held_out = split(kept, options.holdout)
    of_rows = {
        "per_device_eval_batch_size": rows_per_pass(options),
        "train_sampling_strategy": "group_by_length" if options.group_by_length else "random",
        "max_length": None,  # rows that are too long are gone
    }
    collate: Any = trl.collator(pad_token_id=chat.pad_id if pad_id is None else pad_id)
    trainer_class: Any = trl.trainer
    if replay:
        trainer_class = type("Replaying", (ReplayLoss, trainer_class), {"replay": replay})
    trainer = run_trainer(
        trainer_class,
        trl.arguments(**trainer_arguments(options, context) | of_rows | dict(arguments)),
        model,
        chat,
        context,
        options,
        callbacks=[EarlyStop(options.eval_steps, options.patience)] if held_out else [],
        train_dataset=Dataset.from_list(kept),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        data_collator=numbered(collate) if replay else collate,
        **reference,
    )
    take_best(trainer)
    save_trained(trainer, chat, context)
    tail, figures = _figures(trainer)
    figures |= {"rows": len(kept), "too_long": too_long} | holdout_figures(trainer, held_out)
    if replay:
        figures |= {"replay_loss": tail_mean(tail, "replay"), "replay_rows": len(replay.demonstrations)}
    return tail, figures


def _figures(trainer: Any) -> tuple[Sequence[Logs], dict[str, float]]:
    """The logs of the last 20 % of the steps that made the weights that are kept, and ``loss`` and ``steps``."""
    steps = [logs for logs in trainer.state.log_history if "loss" in logs]
    useful = [logs for logs in steps if logs["step"] <= (trainer.state.best_global_step or math.inf)]
    tail = useful[-max(1, len(useful) // 5) :]
    return tail, {"loss": tail_mean(tail, "loss"), "steps": len(steps)}


def run_trainer(
    trainer_class: Any,
    arguments: Any,
    model: PreTrainedModel,
    chat: Chat,
    context: TrainingContext,
    options: OptimizationOptions,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    shown: Sequence[str] = ("loss",),
    span: int = 1,
    **extra: Any,
) -> Trainer:
    """Train the model with a TRL trainer from the last whole checkpoint on, if there is one; nothing is saved.

    Args:
        arguments: the trainer's, which hold those of :func:`trainer_arguments`.
        shown, span: see :class:`Progress`.
        extra: further keywords of the trainer (``train_dataset``).
    """
    with cpu_threads(options.threads, model), _head_reads_labels_alone():
        trainer = type("Silent", (SilentTrainer, HeldOutLoss, trainer_class), {})(
            model=model,
            args=arguments,
            processing_class=chat.tokenizer,
            peft_config=lora_config(context.start, model),
            callbacks=[Progress(context, options, shown, span), *callbacks],
            **extra,
        )
        trainer.remove_callback(PrinterCallback)
        checkpoint = checkpoint_to_resume(context.work, trainer.accelerator)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def save_trained(trainer: Any, chat: Chat, context: TrainingContext) -> None:
    """:func:`save_model` of a trainer's model."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_model(model, trainer.accelerator, chat, context, trainer.args.learning_rate)


@contextmanager
def _head_reads_labels_alone() -> Iterator[None]:
    """The model's head reads only what has a label on a CPU, too, and neither prompts nor padding.

    TRL lets it read everything where there is no Triton, so that compilers of other devices always see the same shapes.
    """
    before: Any = utils._use_triton
    utils._use_triton = lambda device: device.type == "cpu" or before(device)
    try:
        yield
    finally:
        utils._use_triton = before
