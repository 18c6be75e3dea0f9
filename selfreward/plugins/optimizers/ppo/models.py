"""The models PPO runs: policy with adapters or without, value function, and the frozen reference."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from selfreward import Chat, ModelRef, StageError, TrainingContext
from selfreward.plugins.optimizers.ppo.actor_critic import ActorCritic
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.training.loading import (
    computes_in_bfloat16,
    load_model,
    lora_config,
    model_config,
    set_dropout,
)


def load_actor_critic(context: TrainingContext, config: PpoConfig) -> ActorCritic:
    """Policy and value function before the first step."""
    torch.manual_seed(context.seed)  # adapters begin at random
    policy: Any = load_model(context.start, config.dropout)
    policy.config.use_cache = False
    if config.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
        policy.enable_input_require_grads()
    lora = lora_config(context.start, policy)
    policy = get_peft_model(policy, lora) if lora else policy
    critic, head = _critic(context.critic, context.start.chat(), config) if context.critic else (None, None)
    model = ActorCritic(policy, critic, context.temperature, config.entropy_coef > 0)
    if head is not None:
        with torch.no_grad():
            model.value_head.weight.copy_(head)
    return model


def _critic(start: ModelRef, chat: Chat, config: PpoConfig) -> tuple[nn.Module, torch.Tensor | None]:
    """A value model's trunk, and its head where it begins as a reward model.

    Raises:
        StageError: the policy's tokens are no tokens of its.
    """
    trunk, head = _trunk(start)
    set_dropout(trunk, config.dropout)
    size, wanted = trunk.config.get_text_config().vocab_size, len(chat.tokenizer)
    if size < wanted:
        raise StageError(
            f"optimizer.critic={start.name} knows {size} tokens and the policy {wanted}: take a critic with the "
            "policy's tokenizer, or optimizer.critic=head"
        )
    if config.gradient_checkpointing:
        trunk.gradient_checkpointing_enable({"use_reentrant": False})
    return trunk, head


def _trunk(start: ModelRef) -> tuple[Any, torch.Tensor | None]:
    architectures = model_config(start).architectures or [""]
    details: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True}
    if not architectures[0].endswith("ForSequenceClassification"):
        return AutoModel.from_pretrained(start.path, **details), None
    whole = AutoModelForSequenceClassification.from_pretrained(start.path, **details)
    head = next(weight for name, weight in whole.named_parameters() if not name.startswith(whole.base_model_prefix))
    return whole.base_model, head.detach()


def load_reference(context: TrainingContext) -> Any:
    """The frozen reference; None where it is the policy with its adapters off, which needs no second copy."""
    if context.start.config.lora.r and context.reference.key == context.start.key:
        return None
    return load_model(context.reference).eval().requires_grad_(False)


def precision(start: ModelRef) -> Callable[[], AbstractContextManager]:
    """What forward passes run under: bfloat16 where the float32 weights are those of a bfloat16 model."""
    return partial(torch.autocast, "cuda", torch.bfloat16) if computes_in_bfloat16(start) else nullcontext
