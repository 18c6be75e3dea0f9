"""A Hugging Face causal language model, as the engine runs it: prompts in, then one token of each row at a time."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from selfreward import Chat, ModelRef
from selfreward.plugins.engines.transformers import decode_attention
from selfreward.plugins.engines.transformers.checkpoint import load
from selfreward.plugins.engines.transformers.slots import Slots

WORTH_SHARING = 512
"""Tokens that a shared prefix must save: running it apart costs one small call of the model, copying it next to nothing
(a token's keys and values are copied in about a hundredth of the time in which they are computed)."""

READ_AT_ONCE = 2048
"""Tokens of prompts in one call of the model: enough to keep it busy, few enough for a CPU's cache."""
T = TypeVar("T")


@dataclass(frozen=True)
class Prompts:
    """Prompts that the model has read.

    Attributes:
        cache: keys and values of ``mask``'s columns.
        mask: which columns are tokens of the prompt, and not padding [prompts, columns].
        logits: after the last column, float32 [prompts, vocabulary].
    """

    cache: DynamicCache
    mask: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class Prefix:
    """What all prompts of a call begin with: so many tokens, run once."""

    length: int = 0
    cache: DynamicCache | None = None


class CausalLm:
    """The open model.

    Attributes:
        chat: tokenizer and template.
        context: tokens that fit into it.
        vocabulary: size of the logits.
        replaces: whether rows of different age can share a batch: all layers are plain full attention, and the model
            takes each token's position from us.
    """

    def __init__(self, model: ModelRef, device: str) -> None:
        self.device = device
        self.chat: Chat = model.chat()
        self.model: Any = load(model).to(device).eval()
        accepted = inspect.signature(self.model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.config = self.model.config
        text_config = self.config.get_text_config(decoder=True)
        self.context: int = getattr(text_config, "max_position_embeddings", None) or 1 << 40
        self.vocabulary: int = text_config.vocab_size
        self._plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=self.config).layers)
        self.replaces = self._plain and self._takes_positions
        if self.replaces and self.model._supports_attention_backend and self.config._attn_implementation == "sdpa":
            self.model.set_attn_implementation(decode_attention.NAME)

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def prefix(self, prompts: Sequence[tuple[int, ...]]) -> Prefix:
        """Run what the prompts have in common, where that saves work."""
        if not self._plain or len(prompts) < 2:
            return Prefix()
        first, last = min(prompts), max(prompts)
        common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))))
        length = min(common, min(map(len, prompts)) - 1)  # each prompt has a token of its own
        if length * (len(prompts) - 1) < WORTH_SHARING:
            return Prefix()
        return Prefix(length, self.read([first[:length]], Prefix(), left=False).cache)

    def read(self, prompts: Sequence[Sequence[int]], prefix: Prefix, *, left: bool) -> Prompts:
        """Run prompts, padded to the longest; on the right, where no mask is needed, or on the ``left``.

        With the padding on the right, only the longest prompt's logits are of use.
        """
        start = prefix.length
        rest = [list(prompt[start:]) for prompt in prompts]
        width = max(1, *map(len, rest))
        padding = [[self.chat.pad_id] * (width - len(tokens)) for tokens in rest]
        ids = self.tensor([pad + t if left else t + pad for pad, t in zip(padding, rest, strict=True)])
        skipped = self.tensor([len(pad) if left else 0 for pad in padding])[:, None]
        columns = torch.arange(width, device=self.device)
        positions = start + (columns - skipped).clamp(min=0)
        own = (columns >= skipped).long()
        mask = torch.cat([own.new_ones(len(prompts), start), own], dim=1)
        cache = self._expanded(prefix, len(prompts))
        logits = self._run(ids, mask if left else None, positions, cache, self._last_only)
        return Prompts(cache, mask, logits[:, -1].float())

    def step(self, last: list[int], columns: list[int], padding: list[int], slots: Slots) -> torch.Tensor:
        """Run one token of each row, each at its own column of its slot; float32 logits [rows, vocabulary].

        ``padding`` counts the columns at the start of each slot that are not part of the row.
        """
        tokens, at, skipped = self.tensor([last, columns, padding])[:, :, None]
        width = max(columns) + 1
        slots.point(at[:, 0], width)
        every = torch.arange(width, device=self.device)
        mask = ((every >= skipped) & (every <= at)).long()
        with decode_attention.reading(decode_attention.bands_of([column + 1 for column in columns])):
            return self._run(tokens, mask, at - skipped, slots.cache, self._last_only)[:, -1].float()

    def follow(self, prompts: Prompts, rows: torch.Tensor, replies: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits after each token of replies to ``prompts`` (padded on the left) [rows, longest reply, vocabulary].

        Reply ``i`` follows prompt ``rows[i]``.
        """
        width = max(map(len, replies))
        ids = self.tensor([[*reply, *[self.chat.pad_id] * (width - len(reply))] for reply in replies])
        before = prompts.mask[rows]
        cache = copy.copy(prompts.cache)  # it is used again; of plain layers, picking rows makes new tensors
        cache.layers = [
            copy.copy(layer) if type(layer) is DynamicLayer else copy.deepcopy(layer) for layer in cache.layers
        ]
        cache.reorder_cache(rows)  # type: ignore[arg-type]
        positions = before.sum(-1, keepdim=True) + torch.arange(width, device=self.device)
        return self._run(ids, torch.cat([before, torch.ones_like(ids)], dim=1), positions, cache, {})

    def tensor(self, numbers: list[Any]) -> torch.Tensor:
        """Integers, where the model is."""
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _run(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        cache: DynamicCache,
        options: dict[str, int],
    ) -> torch.Tensor:
        where = {"position_ids": positions} if self._takes_positions else {}
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where, **options)
        logits: torch.Tensor = out.logits
        return logits

    def _expanded(self, prefix: Prefix, rows: int) -> DynamicCache:
        """A cache in which each row has read the prefix."""
        cache = DynamicCache(config=self.config)
        read: list[Any] = prefix.cache.layers if prefix.cache else []
        for layer, shared in zip(cache.layers, read, strict=False):
            layer.lazy_initialization(shared.keys, shared.values)
            states: Any = layer
            states.keys = shared.keys.expand(rows, -1, -1, -1)
            states.values = shared.values.expand(rows, -1, -1, -1)
        return cache


def parts(items: Sequence[T], count: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Cut items, the largest first, into parts of as many as ``count`` allows for the first of each, at least one."""
    while items:
        size = max(1, count(items[0]))
        yield items[:size]
        items = items[size:]
