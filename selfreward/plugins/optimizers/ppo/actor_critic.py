"""The policy and its value function: what PPO trains, as one module.

The value of the state before token t is read where the policy predicts token t, from the last hidden state:

- a *head* on the policy: one linear layer that begins at zero, so that at first nothing is pulled about;
- a *critic*: a model of its own, which begins as the policy or as the reward model does (then with the reward model's
  head), and leaves the policy's weights to the policy.

Source: arXiv:2403.17031 (details 12 to 14: the value model from the reward model, or a zero head), arXiv:1909.08593 §2.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn


@dataclass(frozen=True)
class Sequences:
    """Prompts, padded on the left, and answers, padded on the right.

    Attributes:
        ids: [answers, prompt tokens + answer tokens].
        attention: 1 where there is a token, of the same shape.
        mask: 1 where there is a token of an answer [answers, answer tokens].
    """

    ids: Tensor
    attention: Tensor
    mask: Tensor

    @property
    def answers(self) -> Tensor:
        """Ids of the answers' tokens [answers, answer tokens]."""
        return self.ids[:, -self.mask.shape[1] :]


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives for each token of an answer [answers, answer tokens]."""

    logprobs: Tensor
    values: Tensor
    entropy: Tensor | None
    """None where no gradient is taken."""
    replay_logprob: Tensor | None
    """Summed log-probability of the demonstrations, where there are any."""


class ActorCritic(nn.Module):
    """Policy and value function. A forward pass is what one backward pass needs, so that DDP may wrap it."""

    def __init__(self, policy: Any, critic: nn.Module | None, temperature: float, entropy: bool) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        self.temperature, self._entropy = temperature, entropy
        config: Any = policy.config if critic is None else critic.config
        width = config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, sequences: Sequences, demonstrations: Mapping[str, Tensor] | None = None) -> Outputs:
        """Read the answers, and demonstrations (``input_ids``, ``labels``, ``attention_mask``) where there are any."""
        logprobs, entropy, hidden = answer_logprobs(self.policy, sequences, self.temperature, self._entropy)
        if self.critic is not None:
            hidden = self.critic(**_inputs(sequences), use_cache=False).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):  # in bfloat16 a value has three digits
            values = self.value_head(_before_answers(hidden, sequences).float())[..., 0]
        replay_logprob = _demonstration_logprob(self.policy, demonstrations) if demonstrations else None
        return Outputs(logprobs, values, entropy, replay_logprob)

    def reference_logprobs(self, sequences: Sequences) -> Tensor:
        """The policy's log-probabilities with its adapters off: of LoRA, the model that training began from."""
        off = self.policy.disable_adapter() if isinstance(self.policy, PeftModel) else nullcontext()
        with off:
            return answer_logprobs(self.policy, sequences, self.temperature, False)[0]


def answer_logprobs(
    model: Any, sequences: Sequences, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-probabilities and entropy of the answers' tokens at a temperature, and the last hidden state of all tokens.

    The entropy carries a gradient only where it is asked for: that takes two more copies of the logits.
    """
    length, width = sequences.ids.shape[1], sequences.mask.shape[1]
    before = torch.arange(length - width - 1, length - 1, device=sequences.ids.device)
    # the model's own head, since some scale or cap their logits; only where an answer's token is predicted
    kept = {"logits_to_keep": before} if _keeps(model) else {}
    output = model(**_inputs(sequences), use_cache=False, output_hidden_states=True, **kept)
    logits = output.logits if kept else output.logits[:, before]
    logs = (logits.float() / temperature).log_softmax(-1)
    logprobs = logs.gather(-1, sequences.answers[..., None])[..., 0]
    return logprobs, _entropy(logs, entropy) if torch.is_grad_enabled() else None, output.hidden_states[-1]


def _entropy(logs: Tensor, gradient: bool) -> Tensor:
    if gradient:
        return -(logs.exp() * logs).sum(-1)
    with torch.no_grad():  # answer by answer, so that no copy of all the logits is made
        return torch.stack([-some.exp().mul_(some).sum(-1) for some in logs])


def _keeps(model: Any) -> bool:
    forward = (model.get_base_model() if isinstance(model, PeftModel) else model).forward
    return "logits_to_keep" in inspect.signature(forward).parameters


def _inputs(sequences: Sequences) -> dict[str, Tensor]:
    positions = (sequences.attention.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": sequences.ids, "attention_mask": sequences.attention, "position_ids": positions}


def _before_answers(hidden: Tensor, sequences: Sequences) -> Tensor:
    return hidden[:, -sequences.mask.shape[1] - 1 : -1]


def _demonstration_logprob(policy: Any, demonstrations: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: tensor for name, tensor in demonstrations.items() if name != "labels"}
    logs = policy(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    labels = demonstrations["labels"][:, 1:]
    wanted = labels.clamp(min=0)[..., None]
    return (logs.gather(-1, wanted)[..., 0] * (labels != -100)).sum()
