"""Draws the next token of every row from the row's own random stream.

::

    logits / temperature -> top-k -> top-p -> p = softmax in float32;  q ~ Exp(1) in float64;  token = argmax p / q

A sample from p (an exponential race: Gumbel's trick without logarithms), and the one that vLLM draws with
``use_fp64_gumbel``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from selfreward import Sampling
from selfreward.plugins.engines.reply import Reply
from selfreward.plugins.engines.transformers.trie import Trie


class Draw:
    """One way to sample, for replies of which each has a stream."""

    def __init__(self, sampling: Sampling, trie: Trie | None) -> None:
        self._sampling = sampling
        self._trie = trie
        self._noise: list[torch.Tensor] = []
        self._buffer = torch.empty(0)

    def __call__(self, logits: torch.Tensor, replies: Sequence[Reply]) -> list[int]:
        """The next token of each reply, after ``logits`` [replies, vocabulary] in float32."""
        if self._trie is not None:
            logits = logits.masked_fill(~self._trie.allowed([reply.node for reply in replies]), -math.inf)
        drawn = self._sample(logits, replies) if self._sampling.temperature else logits.argmax(-1)
        tokens: list[int] = drawn.tolist()
        if self._trie is not None:
            for reply, token in zip(replies, tokens, strict=True):
                reply.node = self._trie.step(reply.node, token)
        return tokens

    def _sample(self, logits: torch.Tensor, replies: Sequence[Reply]) -> torch.Tensor:
        logits = top_k_filter(logits / self._sampling.temperature, self._sampling.top_k)
        probabilities = top_p_filter(logits, self._sampling.top_p).softmax(-1)
        if len(self._noise) < len(replies):
            self._buffer = torch.ones_like(logits, dtype=torch.float64)
            self._noise = list(self._buffer.unbind())
        for reply, noise in zip(replies, self._noise, strict=False):
            if reply.stream is None:
                reply.stream = torch.Generator(logits.device).manual_seed(reply.seed)
            noise.exponential_(generator=reply.stream)
        return (probabilities.double() / self._buffer[: len(replies)]).argmax(-1)


def top_k_filter(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the ``k`` highest logits of each row [rows, vocabulary] and ties with the last; 0 keeps all."""
    if not 0 < k < logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf)


def top_p_filter(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep, in each row, the fewest most probable tokens whose mass reaches ``p``, and ties with the last.

    Source: nucleus sampling, arXiv:1904.09751 §3.1.
    """
    if p >= 1:
        return logits
    probabilities = logits.softmax(-1)
    ranked = _ascending(probabilities).flip(-1)
    kept = 1 + (ranked.cumsum(-1)[:, :-1] < p).sum(-1, keepdim=True)
    return logits.masked_fill(probabilities < ranked.gather(-1, kept - 1), -math.inf)


def _ascending(values: torch.Tensor) -> torch.Tensor:
    """The values of each row in order."""
    if values.device.type != "cpu":
        return values.sort(dim=-1).values
    import numpy as np

    return torch.from_numpy(np.sort(values.numpy()))  # many times faster than torch's sort on a CPU
