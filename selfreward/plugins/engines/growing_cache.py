"""A key-value cache that does not copy itself for every new token.

``DynamicCache`` concatenates: each step copies all keys and values. Here a layer reserves room for the whole generation
once and hands out views of it, as a vector does that grows in place. Layers of another kind (sliding window, linear
attention) stay as the model's config makes them.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values [rows, heads, tokens, head_dim] as views of buffers with room for ``capacity`` tokens."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new states and return all of them."""
        if self.keys is None or self.values is None:  # the prompt: kept as it comes, its rows will be multiplied
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        if self._buffers is None:
            self._buffers = self._reserve(self.keys), self._reserve(self.values)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = self._buffers[0][:, :, :end], self._buffers[1][:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._buffers = None

    def _reserve(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, length, width = states.shape
        buffer = states.new_empty(rows, heads, self.capacity, width)
        buffer[:, :, :length] = states
        return buffer


def growing_cache(config: PretrainedConfig, capacity: int) -> DynamicCache:
    """The cache that fits the model, with room for ``capacity`` tokens in its full-attention layers (no more fit)."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
