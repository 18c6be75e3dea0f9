"""The key-value cache of a batch whose rows come and go.

Each row has a slot in buffers [slots, heads, capacity, head_dim], and each row's next key and value are written at that
row's own column, so rows of different age share a step::

    slot 0   p p p p p r r r r .      p: prompt, r: reply, .: room
    slot 1   p p p r . . . . . .      a step reads the first `width` columns; what a row has not written is masked
    slot 2   p p p p r r . . . .

Keys are stored with their positions turned in, so that a column means nothing. The rows in use are always the first
ones: one that ends gives its slot to the last. Layers of another kind than plain full attention (sliding window, linear
attention) stay as the model's config makes them; they know no columns, so all rows of such a batch are of one age.
Source: continuous batching as in Orca (OSDI 2022, iteration-level scheduling), with one contiguous slot for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class Slots:
    """Slots for rows, in all layers of a model.

    Attributes:
        cache: what the model is given as ``past_key_values``.
        count: slots there are.
        used: slots in use, the first ones.
        capacity: columns of a slot.
    """

    def __init__(self, config: PretrainedConfig, count: int, capacity: int) -> None:
        self.cache = DynamicCache(config=config)
        self.count, self.capacity, self.used = count, capacity, 0

    def admit(self, prefilled: DynamicCache, copies: torch.Tensor) -> None:
        """Fill the next free slots: the i-th of them with row ``copies[i]`` of a cache that has seen the prompts."""
        layers: list[Any] = prefilled.layers
        for number, layer in enumerate(layers):
            mine: Any = self.cache.layers[number]
            if type(mine) is DynamicLayer:
                mine = self.cache.layers[number] = SlotLayer(layer, self.count, self.capacity)
            if isinstance(mine, SlotLayer):
                mine.admit(layer, self.used, copies)
            else:
                layer.reorder_cache(copies)
                self.cache.layers[number] = layer
        self.used += len(copies)

    def point(self, columns: torch.Tensor, width: int) -> None:
        """Say where the next token of each row goes, and that all of them lie in the first ``width`` columns."""
        rows = torch.arange(self.used, device=columns.device)
        for layer in self.cache.layers:
            if isinstance(layer, SlotLayer):
                layer.rows, layer.columns, layer.width = rows, columns, width

    def keep(self, order: Sequence[int]) -> None:
        """Keep these slots, and no others, in this order."""
        self.used = len(order)
        moved = [(before, slot) for slot, before in enumerate(order) if slot != before]
        layers: list[Any] = self.cache.layers
        for layer in layers:
            if not isinstance(layer, SlotLayer):
                layer.reorder_cache(torch.tensor(order, dtype=torch.long, device=layer.device))
            elif moved:
                layer.move(moved)


def without(ended: Sequence[int], used: int) -> list[int]:
    """The order in which ``used`` slots are kept when some have ended: the last ones fill the gaps."""
    gone, left = set(ended), used - len(ended)
    movers = iter([slot for slot in range(left, used) if slot not in gone])
    return [next(movers) if slot in gone else slot for slot in range(left)]


class SlotLayer(DynamicLayer):
    """One layer's buffers. ``keys`` and ``values`` [used, heads, width, head_dim] are views of them."""

    def __init__(self, like: Any, count: int, capacity: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.dtype, like.device, True
        # zeros: what was never written is masked, but not-a-number would get through a mask
        self._buffers = [
            states.new_zeros(count, states.shape[1], capacity, states.shape[3]) for states in (like.keys, like.values)
        ]
        self.rows = self.columns = torch.empty(0)
        self.width = 0

    def admit(self, prefilled: DynamicLayer, start: int, copies: torch.Tensor) -> None:
        """Copy rows of another layer into the slots from ``start`` on."""
        for buffer, states in zip(self._buffers, (prefilled.keys, prefilled.values), strict=True):
            assert states is not None
            states = states[:, :, : buffer.shape[2]]  # what a longer row, gone by now, has left behind is not wanted
            torch.index_select(states, 0, copies, out=buffer[start : start + len(copies), :, : states.shape[2]])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token of each row at its column and return the first ``width`` columns."""
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[self.rows, :, self.columns] = states[:, :, 0]
        self.keys, self.values = (buffer[: len(self.rows), :, : self.width] for buffer in self._buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens before the one to come, as masks count them."""
        return self.width - 1

    def move(self, moved: Sequence[tuple[int, int]]) -> None:
        """Copy slots onto others: (source, target), all at once."""
        sources, targets = torch.tensor(moved, device=self.device).unbind(1)
        for buffer in self._buffers:
            buffer[targets, :, : self.width] = buffer[sources, :, : self.width]
