"""Attention of one new token of each row, which reads no more of the cache than there is.

Rows of different age have caches of different length. They lie in order, the longest first, and are cut into *bands*
of similar length; each band is one call that reads its own width only::

    row 0  ################....    band 0: 16 columns
    row 1  ##############......
    row 2  #######.............    band 1: 7 columns
    row 3  #####...............

Query heads that share a key head (grouped queries, arXiv:2305.13245) are given to the kernel as if they were queries of
one head, so keys and values are not multiplied, as transformers does where there is a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "selfreward_decode"
SIMILAR = 7 / 8
"""Rows that are shorter than this share of a band's width begin the next band: about an eighth is read in vain."""
WORTH_A_CALL = 512
"""... if that saves so many columns: fewer are read faster than one more call of the kernel takes."""

Band = tuple[int, int]  # the first row, and the columns that this row and all after it stay in
_bands: ContextVar[Sequence[Band]] = ContextVar("bands", default=())


def bands_of(lengths: Sequence[int]) -> list[Band]:
    """Cut rows, the longest first (but for a few), into bands."""
    found: list[Band] = []
    widths = list(accumulate(reversed(lengths), max))[::-1]
    for row, width in enumerate(widths):
        saved = found[-1][1] - width if found else 0
        if not found or (width < SIMILAR * found[-1][1] and saved * (len(lengths) - row) >= WORTH_A_CALL):
            found.append((row, width))
    return found


def columns_read(lengths: Sequence[int]) -> int:
    """What a step reads of the cache, in columns of a row."""
    bands = bands_of(lengths)
    ends = [start for start, _ in bands[1:]] + [len(lengths)]
    return sum((end - start) * width for (start, width), end in zip(bands, ends, strict=True))


@contextmanager
def reading(bands: Sequence[Band]) -> Iterator[None]:
    """Within this, a step of the model reads its cache in these bands."""
    token = _bands.set(bands)
    try:
        yield
    finally:
        _bands.reset(token)


def decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls ``sdpa``, with a way of its own for a step of bands [rows, heads, 1, head_dim]."""
    bands = _bands.get()
    if not bands or attention_mask is None or kwargs.get("position_bias") is not None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return plain
    rows, heads, _, size = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], size)
    ends = [start for start, _ in bands[1:]] + [rows]
    parts = [
        scaled_dot_product_attention(
            grouped[start:end],
            key[start:end, :, :width],
            value[start:end, :, :width],
            attn_mask=attention_mask[start:end, :, :, :width],
            scale=scaling,
        )
        for (start, width), end in zip(bands, ends, strict=True)
    ]
    out = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, decode_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
