"""A reward model, as the engine runs it: whole replies in, one number for each.

r(x, y) = w · h − shift, where h is the last hidden state at the last token of prompt + reply + end-of-turn token, and
shift is ``selfreward_reward_shift`` of ``config.json`` (0 where it is not there): what makes the mean over reference
outputs 0. Source: arXiv:2009.01325 §3.4.

The last token is known by its position. transformers' own forward looks for the last token that is not the pad id, and
so misses the end of a turn where that token pads as well. Rows are padded on the right, where no causal model sees the
padding; the head is applied in float32, since bfloat16 would make a tie of every hundredth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from selfreward import Chat, ModelRef, UserError
from selfreward.plugins.engines.transformers.causal_lm import READ_AT_ONCE, parts
from selfreward.plugins.engines.transformers.checkpoint import load

Tokens = tuple[int, ...]


class RewardModel:
    """The open model.

    Attributes:
        chat: tokenizer and template.
        context: tokens that fit into it.
    """

    def __init__(self, model: ModelRef, device: str) -> None:
        self.device = device
        self.chat: Chat = model.chat()
        self.model: Any = load(model).to(device).eval()
        config = self.model.config.get_text_config(decoder=True)
        if not isinstance(getattr(self.model, "score", None), torch.nn.Linear):
            raise UserError(
                f"{model.path}: engine=transformers runs reward models that are causal, with a linear head `score` "
                f"over the last token; a {type(self.model).__name__} has none"
            )
        if (known := len(self.chat.tokenizer)) > config.vocab_size:
            raise UserError(
                f"{model.path}: the tokenizer has {known} tokens and the reward model knows {config.vocab_size}; give "
                f"the folder the tokenizer it was trained with, or train it after resize_token_embeddings({known})"
            )
        self._head = self.model.score.float()
        self.context: int = getattr(config, "max_position_embeddings", None) or 1 << 40
        self._shift = float(getattr(self.model.config, "selfreward_reward_shift", 0.0))

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def rewards(self, sequences: Collection[Tokens], budget: int) -> Iterator[tuple[Tokens, float]]:
        """Yield (sequence, reward) for prompts with their replies; longest first, in batches of ``budget`` tokens."""
        order = sorted(sequences, key=lambda tokens: (-len(tokens), tokens))
        for some in parts(order, lambda longest: min(budget, READ_AT_ONCE) // len(longest)):
            for tokens, reward in zip(some, self._read(some).tolist(), strict=True):
                yield tokens, reward - self._shift

    def _read(self, sequences: Sequence[Tokens]) -> torch.Tensor:
        """The head's number at the last token of each sequence, float32 [sequences]."""
        width = max(map(len, sequences))
        padded = [[*tokens, *[self.chat.pad_id] * (width - len(tokens))] for tokens in sequences]
        ids = torch.tensor(padded, dtype=torch.long, device=self.device)
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(tokens) - 1 for tokens in sequences], device=self.device)
        numbers: torch.Tensor = self._head(hidden[torch.arange(len(sequences), device=self.device), last].float())
        return numbers[:, 0]
