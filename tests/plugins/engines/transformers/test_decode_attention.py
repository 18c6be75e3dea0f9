"""Bands against their definition; attention in bands against attention over everything."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from selfreward.plugins.engines.transformers.decode_attention import (
    SIMILAR,
    WORTH_A_CALL,
    bands_of,
    columns_read,
    decode_attention,
    reading,
)

lengths_of_rows = st.lists(st.integers(1, 300), min_size=1, max_size=30)


@given(lengths_of_rows)
def test_a_band_holds_its_rows_and_rows_in_order_are_read_with_little_waste(lengths: list[int]) -> None:
    for rows in (lengths, sorted(lengths, reverse=True)):
        bands = bands_of(rows)
        widths = [next(w for start, w in reversed(bands) if start <= row) for row in range(len(rows))]
        assert all(width >= length for width, length in zip(widths, rows, strict=True))
        assert columns_read(rows) == sum(widths) <= len(rows) * max(rows)
    for row, (length, width) in enumerate(zip(rows, widths, strict=True)):  # the last ones, which are in order
        assert length >= SIMILAR * width or (width - length) * (len(rows) - row) < WORTH_A_CALL


@given(lengths_of_rows, st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_attention_in_bands_is_attention(lengths: list[int], groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths)
    query = torch.randn(rows, 4, 1, 8, generator=generator)
    key, value = (torch.randn(rows, 4 // groups, width, 8, generator=generator) for _ in range(2))
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None])[:, None, None]
    repeated = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    expected = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3).transpose(1, 2)
    with reading(bands_of(lengths)):
        found, _ = decode_attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    assert torch.allclose(found, expected, atol=1e-5)
