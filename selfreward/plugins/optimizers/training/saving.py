"""The new model's checkpoint: adapters merged, weights as safetensors, tokenizer, template, end-of-turn ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfreward import Chat, StageError, TrainingContext
from selfreward.plugins.optimizers.training.loading import saved_dtype

if TYPE_CHECKING:
    from accelerate import Accelerator


def save_model(model: Any, accelerator: Accelerator, chat: Chat, context: TrainingContext, lr: float) -> None:
    """Write the trained model into ``context.out``, from the process that does it.

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
