"""One training run through TRL: options, loading, the trainer's arguments, figures, saving.

TRL brings the loss, the Hugging Face ``Trainer`` brings the loop (AdamW, accumulation, FSDP, DeepSpeed). What is ours:

- **tokens**: rows reach the trainer as ids, so that text which looks like a control token stays text, and sampled
  answers are trained on exactly as they were sampled; TRL tokenises nothing.
- **length**: a row that does not fit is dropped whole and counted (``too_long``), never cut in the middle of an
  answer.
- **precision**: full training keeps float32 weights (a step of 1e-6 is lost in bfloat16) and computes in bfloat16 where
  a GPU runs a bfloat16 model; the checkpoint is saved in the model's own precision.
- **silence**: no telemetry, no progress bars, no reports; progress goes to ``context.progress``.
- **resume**: killed at any moment and started again, training goes on from the last whole checkpoint in
  ``context.work`` and ends as if undisturbed, on a CPU in float32 to the bit. Weights, AdamW's moments, the schedule,
  random states and logs are in the checkpoint; the reference's log-probabilities are computed again; the order of the
  rows is drawn from seed and epoch alone, as the trainer would otherwise draw it from random states that have moved on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from selfreward import OptimizerConfig, StageError, option
from selfreward.plugins.optimizers import holdout
from selfreward.plugins.optimizers.checkpoints import delete_torn, last_checkpoint, seal_checkpoint

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from peft import LoraConfig
    from torch.utils.data import Sampler
    from transformers import PreTrainedModel, Trainer, TrainerCallback

    from selfreward import Chat, Demonstration, Message, ModelConfig, ModelRef, TrainingContext

SMALL = 50_000_000
"""Below this many parameters one CPU thread is several times faster than many."""


class Schedule(Enum):
    """How the learning rate goes from ``lr`` to ``lr * min_lr_ratio``."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


@dataclass
class OptimizationOptions(OptimizerConfig):
    """Options of every optimizer that takes gradient steps."""

    lr: float = option(1e-6, gt=0)
    """Peak learning rate of AdamW."""
    epochs: float = option(2.0, gt=0)
    """Passes over the rows."""
    batch_size: int = option(16, ge=1)
    """Rows per optimizer step, over all GPUs and accumulated passes together."""
    gradient_accumulation: int = option(1, ge=1)
    """Passes that a GPU's share of a batch is split into, to save memory."""
    schedule: Schedule = Schedule.linear
    """Decay of the learning rate after warm-up: linear, cosine or constant."""
    min_lr_ratio: float = option(0.1, ge=0, lt=1)
    """Last learning rate as a share of ``lr``; constant ignores it."""
    warmup: float = option(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0 to ``lr``."""
    weight_decay: float = option(0.0, ge=0)
    """AdamW's decoupled decay; norms and biases are spared."""
    adam_beta1: float = option(0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    adam_beta2: float = option(0.95, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    max_grad_norm: float = option(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    gradient_checkpointing: bool = option(False, execution=True)
    """Recompute activations in the backward pass: less memory, about a fifth slower."""
    threads: int = option(0, ge=0)
    """CPU threads; 0 = one for models below 50 million parameters, else torch's own number."""
    checkpoint_steps: int = option(200, ge=0, execution=True)
    """Optimizer steps between checkpoints from which killed training goes on; 0 = none."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.batch_size % self.gradient_accumulation:
            return [
                f"batch_size={self.batch_size} must be a multiple of gradient_accumulation={self.gradient_accumulation}"
            ]
        return []


@dataclass
class TrainingOptions(OptimizationOptions):
    """Options of every optimizer that trains on rows that are there before it begins."""

    dropout: float = option(0.0, ge=0, lt=1)
    """Dropout inside the model while it trains, wherever its architecture has some (the paper: 0.1)."""
    max_length: int = option(2048, ge=2)
    """Tokens of prompt and answer together; longer rows are dropped and counted as ``too_long``."""
    group_by_length: bool = True
    """Put rows of similar length in a batch, so that less is padded."""
    holdout: float = option(0.0, ge=0, lt=1)
    """Share of the prompts that is kept out of training; the weights that do best on them are kept. 0 = none."""
    eval_steps: int = option(200, ge=1)
    """Optimizer steps between measurements on the held-out prompts; the last step is always measured."""
    patience: int = option(3, ge=0)
    """Measurements without a gain after which training ends early; 0 = it never does, and only the best is kept."""


def lora_problems(model: ModelConfig) -> list[str]:
    """What TRL would refuse after the model has been loaded."""
    if model.lora.r and "lm_head" in model.lora.target_modules:
        return ["model.lora.target_modules: lm_head cannot have an adapter here; leave it out"]
    return []


def answer_ids(chat: Chat, token_ids: Sequence[int], messages: Sequence[Message]) -> list[int]:
    """The tokens of an answer: those that were sampled, else the text with its end-of-turn token."""
    return list(token_ids) or chat.encode_reply(messages[-1]["content"])


def demonstration_rows(demonstrations: Iterable[Demonstration], chat: Chat) -> Iterator[dict[str, Any]]:
    """Demonstrations as ``input_ids`` and ``labels``; prompt tokens carry no loss."""
    for row in demonstrations:
        prompt, answer = chat.encode(row.prompt), answer_ids(chat, row.token_ids, row.completion)
        labels = [-100] * len(prompt) + answer
        yield {"input_ids": prompt + answer, "labels": labels, "length": len(labels), "prompt_id": row.prompt_id}


def train(
    trainer_class: type[Trainer],
    config_class: type,
    chat: Chat,
    rows: Iterable[dict[str, Any]],
    context: TrainingContext,
    options: TrainingOptions,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    *,
    model: PreTrainedModel | None = None,
    **extra: Any,
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Train ``context.start`` on tokenised rows and save the checkpoint into ``context.out``.

    Args:
        trainer_class, config_class: TRL's trainer and its arguments' class.
        chat: the start's tokenizer, saved with the weights.
        rows: columns of token ids, ``length``, the tokens of the row's longest sequence, and ``prompt_id``.
        arguments: what this loss adds to the trainer's arguments.
        model: the start as this loss loads it; None = :func:`load_model`.
        extra: further keywords of the trainer (``data_collator``, ``ref_model``).

    Returns:
        What the trainer logged in each of the last 20 % of the steps (until the best, where prompts are held out), and
        the figures that every optimizer reports.

    Raises:
        StageError: no row fits, or training diverged.
    """
    from datasets import Dataset

    model = load_model(context.start, options.dropout) if model is None else model
    kept, too_long = fitting(rows, options, context.start)
    kept, held_out = holdout.split(kept, options.holdout)
    of_rows = {
        "per_device_eval_batch_size": rows_per_pass(options),
        "train_sampling_strategy": "group_by_length" if options.group_by_length else "random",
        # rows are cut to size by us
        "max_length": None,
    }
    trainer = run_trainer(
        trainer_class,
        config_class(**trainer_arguments(options, context) | of_rows | dict(arguments)),
        model,
        chat,
        context,
        options,
        callbacks=[holdout.early_stop(options.eval_steps, options.patience)] if held_out else [],
        train_dataset=Dataset.from_list(kept),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        **extra,
    )
    holdout.take_best(trainer)
    save(trainer, chat, context)
    steps = [logs for logs in trainer.state.log_history if "loss" in logs]
    useful = holdout.until_best(trainer, steps)
    tail = useful[-max(1, len(useful) // 5) :]
    figures = {"loss": tail_mean(tail, "loss"), "steps": len(steps), "rows": len(kept), "too_long": too_long}
    return tail, figures | holdout.figures(trainer, held_out)


def run_trainer(
    trainer_class: type[Trainer],
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
        shown: logged figures that ``context.progress`` is told.
        span: optimizer steps between which training cannot be taken up again.
        extra: further keywords of the trainer (``train_dataset``).
    """
    from transformers.trainer_callback import PrinterCallback

    with cpu_threads(options.threads, model), _answers_alone():
        trainer = _silent(trainer_class)(
            model=model,
            args=arguments,
            processing_class=chat.tokenizer,
            peft_config=lora_config(context.start, model),
            callbacks=[_progress(context, options, shown, span), *callbacks],
            **extra,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=_whole_checkpoint(trainer, context.work))
    return trainer


def tail_mean(tail: Sequence[Mapping[str, float]], name: str) -> float:
    """Mean of one logged figure over the last steps."""
    return math.fsum(logs[name] for logs in tail) / len(tail)


def trainer_arguments(options: OptimizationOptions, context: TrainingContext) -> dict[str, Any]:
    """Our options as arguments of any TRL trainer, with everything switched off that we do not want."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(context.work),
        # numpy's global generator, which the trainer seeds too, takes 32 bits
        "seed": context.seed % 2**32,
        "learning_rate": options.lr,
        **schedule_arguments(options),
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": rows_per_pass(options),
        "gradient_accumulation_steps": options.gradient_accumulation,
        "weight_decay": options.weight_decay,
        "adam_beta1": options.adam_beta1,
        "adam_beta2": options.adam_beta2,
        "max_grad_norm": options.max_grad_norm,
        "gradient_checkpointing": options.gradient_checkpointing,
        "bf16": cuda and saved_dtype(context.start) != torch.float32,
        "dataloader_pin_memory": cuda,
        "use_cpu": not cuda,
        "ddp_find_unused_parameters": False,
        # the trainer's sampler needs the column ``length``
        "remove_unused_columns": False,
        "logging_steps": 1,
        # otherwise a NaN loss is logged as the mean of the finite ones
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def schedule_arguments(options: OptimizationOptions) -> dict[str, Any]:
    """The learning rate's course, as the trainer's arguments name it."""
    kind, details = {
        # polynomial of power 1 is the linear schedule that can end above 0
        Schedule.linear: ("polynomial", {"lr_end": options.lr * options.min_lr_ratio, "power": 1.0}),
        Schedule.cosine: ("cosine_with_min_lr", {"min_lr_rate": options.min_lr_ratio}),
        Schedule.constant: ("constant_with_warmup", {}),
    }[options.schedule]
    return {"lr_scheduler_type": kind, "lr_scheduler_kwargs": details, "warmup_steps": options.warmup}


def rows_per_pass(options: OptimizationOptions) -> int:
    """Rows that one process runs at once.

    Raises:
        StageError: the batch cannot be split evenly.
    """
    passes = int(os.environ.get("WORLD_SIZE", "1")) * options.gradient_accumulation
    if options.batch_size % passes:
        raise StageError(
            f"optimizer.batch_size={options.batch_size} cannot be split evenly over {passes} passes "
            "(processes x gradient_accumulation); choose a multiple"
        )
    return options.batch_size // passes


def saved_dtype(model: ModelRef) -> torch.dtype:
    """The precision of the new checkpoint: ``model.dtype``, or for ``auto`` on a GPU that of the starting one."""
    import torch
    from transformers import AutoConfig

    name = model.torch_dtype()
    if name != "auto":
        return getattr(torch, name)
    return AutoConfig.from_pretrained(model.path).dtype or torch.float32


def load_model(model: ModelRef, dropout: float = 0.0, auto_class: Any = None, **details: Any) -> PreTrainedModel:
    """The weights, ready to be trained: float32, or the checkpoint's precision below a GPU's float32 adapters.

    They are loaded by ``auto_class`` (None: as a causal language model) with these ``details``.

    Raises:
        StageError: ``dropout`` is asked for and the architecture has none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    frozen = model.config.lora.r > 0 and torch.cuda.is_available()
    dtype = saved_dtype(model) if frozen else torch.float32
    loaded = (auto_class or AutoModelForCausalLM).from_pretrained(
        model.path, dtype=dtype, trust_remote_code=False, use_safetensors=True, **details
    )
    if not set_dropout(loaded, dropout) and dropout:
        raise StageError(f"optimizer.dropout={dropout}: {type(loaded).__name__} has no dropout; set it to 0")
    return loaded


def set_dropout(model: PreTrainedModel, share: float) -> int:
    """Set every dropout in the modules, not in the config that is saved; returns how many there are."""
    import torch

    modules = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) or hasattr(m, "attention_dropout")]
    for module in modules:
        setattr(module, "p" if isinstance(module, torch.nn.Dropout) else "attention_dropout", share)
    return len(modules)


def lora_config(start: ModelRef, model: PreTrainedModel) -> LoraConfig | None:
    """The adapters that ``model.lora`` asks for; None where all weights are trained."""
    from peft import LoraConfig

    lora = start.config.lora
    if not lora.r:
        return None
    names = lora.target_modules
    targets = names if names == "all-linear" else [name.strip() for name in names.split(",")]
    # of a sequence classifier, PEFT trains the whole head besides
    task = "SEQ_CLS" if type(model).__name__.endswith("ForSequenceClassification") else "CAUSAL_LM"
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=task
    )


def context_length(model: ModelRef) -> int | None:
    """Tokens that the model has positions for, where its config says."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


class Bounded(Protocol):
    """Options that say how long a row may be."""

    max_length: int


def fitting(
    rows: Iterable[dict[str, Any]], options: Bounded, start: ModelRef, what: str = "training rows"
) -> tuple[list[dict[str, Any]], int]:
    """The rows that fit into the model's context and ``max_length``, and the number of those that do not.

    Raises:
        StageError: no row fits.
    """
    context = context_length(start) or options.max_length
    limit, given = min(options.max_length, context), list(rows)
    kept = [row for row in given if row["length"] <= limit]
    if not kept:
        raise StageError(
            f"none of the {len(given)} {what} fits into {limit} tokens, the smaller of optimizer.max_length="
            f"{options.max_length} and the model's context of {context}; raise optimizer.max_length, or drop long rows"
        )
    return kept, len(given) - len(kept)


def _silent(trainer_class: type[Trainer]) -> type[Trainer]:
    class Silent(holdout.HeldOutLoss, trainer_class):  # type: ignore[misc, valid-type]
        def _send_telemetry(self) -> None:
            """TRL reports every trainer that is built to its makers; this project uses no network unasked."""

        def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
            """Nobody reads the count, and it walks all modules in every step."""
            return 0

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Nobody reads a card of a checkpoint that is thrown away."""

        def _issue_warnings_after_load(self, load_result: Any) -> None:
            """A weight that is tied to another is not in the file, which is no fault; the seal vouches for the rest."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
            """As the trainer's, with an order that depends on seed and epoch alone."""
            return _in_epochs(super()._get_train_sampler(train_dataset), self)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            """As the trainer's, sealed when every process has written its part."""
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                seal_checkpoint(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    return Silent


def _in_epochs(sampler: Any, trainer: Trainer) -> Sampler:
    """A sampler whose order in an epoch is the same whether or not this process went through those before."""
    import torch
    from torch.utils.data import Sampler

    if hasattr(sampler, "lengths"):  # rows of like length meet in a batch of all processes together
        sampler.batch_size *= trainer.args.world_size

    class InEpochs(Sampler):
        def __len__(self) -> int:
            return len(sampler)

        def __iter__(self) -> Iterator[int]:
            epoch = int(trainer.state.epoch or 0)
            sampler.generator = torch.Generator().manual_seed(trainer.args.seed + epoch)
            return iter(sampler)

    return InEpochs()


def _whole_checkpoint(trainer: Trainer, folder: Path) -> str | None:
    """The checkpoint to go on from; torn ones are deleted."""
    if trainer.is_world_process_zero():
        delete_torn(folder)
    trainer.accelerator.wait_for_everyone()
    found = last_checkpoint(folder)
    return str(found) if found else None


def _progress(
    context: TrainingContext, options: OptimizationOptions, shown: Sequence[str], span: int
) -> TrainerCallback:
    from transformers import TrainerCallback

    every = math.ceil(options.checkpoint_steps / span) * span

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.log_history:  # training goes on
                self._tell(state, next(logs for logs in reversed(state.log_history) if "loss" in logs))

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            # the trainer's own way would save the last step, too, and from there it trains one step too many
            control.should_save = every > 0 and state.global_step % every == 0 and state.global_step < state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            logs = given["logs"]
            if "loss" not in logs:  # the summary at the end
                return
            if not all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "grad_norm")):
                raise StageError(
                    f"training diverged at step {state.global_step} of {state.max_steps}: loss {logs['loss']:.4g}, "
                    f"gradient norm {logs.get('grad_norm', math.nan):.4g}; lower optimizer.lr (now {options.lr:g}) or "
                    f"raise optimizer.warmup (now {options.warmup:g})"
                )
            self._tell(state, logs)

        def _tell(self, state: Any, logs: Mapping[str, float]) -> None:
            if state.is_world_process_zero:
                told = {name: logs[name] for name in shown if logs.get(name) is not None}
                context.progress(state.global_step, state.max_steps, told)

    return Progress()


@contextmanager
def cpu_threads(wanted: int, model: PreTrainedModel) -> Iterator[None]:
    """Torch on as many threads as the option ``threads`` says; afterwards on as many as before."""
    import torch

    before = torch.get_num_threads()
    small = not torch.cuda.is_available() and model.num_parameters() < SMALL
    torch.set_num_threads(wanted or (1 if small else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _answers_alone() -> Iterator[None]:
    """The model's head reads only what has a label on a CPU, too, and neither prompts nor padding.

    TRL lets it read everything where there is no Triton, so that compilers of other devices always see the same shapes.
    """
    from trl.trainer import utils

    before: Any = utils._use_triton
    utils._use_triton = lambda device: device.type == "cpu" or before(device)
    try:
        yield
    finally:
        utils._use_triton = before


def save(trainer: Trainer, chat: Chat, context: TrainingContext) -> None:
    """:func:`save_model` of a trainer's model."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_model(model, trainer.accelerator, chat, context, trainer.args.learning_rate)


def save_model(model: Any, accelerator: Accelerator, chat: Chat, context: TrainingContext, lr: float) -> None:
    """Write the whole checkpoint: adapters merged, weights as safetensors, tokenizer, template, end-of-turn ids.

    Raises:
        StageError: a weight is not finite; nothing is written.
    """
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig

    model = model.merge_and_unload() if isinstance(model, PeftModel) else model
    model.to(saved_dtype(context.start))
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise StageError(
            f"training left {len(broken)} weights that are not finite (first: {broken[0]}), so nothing was saved; "
            f"lower optimizer.lr (now {lr:g})"
        )
    # a foreign checkpoint's sampling defaults would be refused or picked up silently by engines
    model.generation_config = GenerationConfig(eos_token_id=sorted(chat.stop_ids), pad_token_id=chat.pad_id)
    main = accelerator.is_main_process
    model.save_pretrained(context.out, state_dict=accelerator.get_state_dict(model), is_main_process=main)
    if main:
        chat.save(context.out)
