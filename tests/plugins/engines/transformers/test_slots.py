"""Slots against a list of rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig

from selfreward.plugins.engines.transformers.slots import Slots, without

CONFIG = LlamaConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=9)


def states(rows: list[list[float]]) -> torch.Tensor:
    """Rows of numbers as keys [rows, 1 head, longest row, 4], padded with not-a-number."""
    width = max(map(len, rows))
    padded = torch.tensor([[*row, *[float("nan")] * (width - len(row))] for row in rows])
    return padded[:, None, :, None].expand(-1, 1, -1, 4)


@given(st.data())
@settings(max_examples=60)
def test_rows_come_grow_move_and_go(data: st.DataObject) -> None:
    slots, rows, number = Slots(CONFIG, 6, 20), [], 0.0
    for _ in range(data.draw(st.integers(1, 6))):
        lengths = data.draw(st.lists(st.integers(1, 5), max_size=6 - len(rows)))
        if lengths or not rows:
            lengths = lengths or [1]
            new = [[number := number + 1 for _ in range(length)] for length in lengths]
            prompts = DynamicCache(config=CONFIG)
            for layer in range(2):
                prompts.update(states(new), -states(new), layer)
            copies = data.draw(st.lists(st.integers(0, len(new) - 1), min_size=1, max_size=6 - len(rows)))
            slots.admit(prompts, torch.tensor(copies))
            rows += [list(new[copy]) for copy in copies]
        for row in rows:
            row.append(number := number + 1)
        columns = [len(row) - 1 for row in rows]
        slots.point(torch.tensor(columns), max(columns) + 1)
        token = torch.tensor([row[-1] for row in rows])[:, None, None, None].expand(-1, 1, 1, 4)
        for layer in range(2):
            keys, values = slots.cache.update(token, -token, layer)
            for row, key, value in zip(rows, keys, values, strict=True):
                assert key[0, : len(row), 0].tolist() == row
                assert value[0, : len(row), 3].tolist() == [-x for x in row]
        ended = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1))))
        order = without(ended, len(rows))
        assert sorted(order) == [slot for slot in range(len(rows)) if slot not in ended]
        slots.keep(order)
        rows = [rows[slot] for slot in order]
        if data.draw(st.booleans()) and rows:  # laid out anew, with room for no more than is needed
            wider = Slots(CONFIG, 6, 20)
            wider.admit(slots.cache, torch.arange(len(rows)))
            slots = wider
