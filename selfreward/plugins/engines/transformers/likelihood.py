"""How likely given replies are: log p(reply token | prompt and the reply's tokens before it), at temperature 1.

Each prompt is run once; the logits after it weigh the first token of every reply. Only for replies that go on, the
prompt's keys and values are copied and the rest of the reply is run after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

from selfreward.plugins.engines.transformers.causal_lm import READ_AT_ONCE, CausalLm, Prompts, parts

Tokens = tuple[int, ...]
LOGITS_AT_ONCE = 1 << 28
"""Logits that are made at once: 1 GiB in float32, whatever the vocabulary."""


def weigh(
    lm: CausalLm, replies: Mapping[Tokens, set[Tokens]], budget: int
) -> Iterator[tuple[Tokens, Tokens, list[float]]]:
    """Yield (prompt, reply, log-probability of each token) for the replies to each prompt; none of them is empty.

    Longest prompts first, in batches of at most ``budget`` tokens.
    """
    prompts = sorted(replies, key=lambda prompt: (-len(prompt), prompt))
    prefix = lm.prefix(prompts)
    for some in parts(prompts, lambda prompt: min(budget, READ_AT_ONCE) // len(prompt)):
        read = lm.read(some, prefix, left=True)
        asked = [(row, reply) for row, prompt in enumerate(some) for reply in sorted(replies[prompt])]
        logits = read.logits[lm.tensor([row for row, _ in asked])]
        first = _log_probability(logits, lm.tensor([reply[0] for _, reply in asked])).tolist()
        longer = []
        for (row, reply), value in zip(asked, first, strict=True):
            if len(reply) == 1:
                yield some[row], reply, [value]
            else:
                longer.append((row, reply, value))
        longer.sort(key=lambda item: -len(item[1]))
        for part in parts(longer, _rows_at_once(len(some[0]), lm.vocabulary, budget)):
            rest = _after_the_first(lm, read, [row for row, _, _ in part], [reply for _, reply, _ in part])
            for (row, reply, value), values in zip(part, rest, strict=True):
                yield some[row], reply, [value, *values]


def _after_the_first(lm: CausalLm, read: Prompts, rows: list[int], replies: list[Tokens]) -> list[list[float]]:
    """Log-probabilities of all tokens but the first of replies that follow these rows of the prompts."""
    logits = lm.follow(read, lm.tensor(rows), [reply[:-1] for reply in replies])
    width = logits.shape[1]
    wanted = lm.tensor([[*reply[1:], *[0] * (width + 1 - len(reply))] for reply in replies])
    values = _log_probability(logits, wanted).tolist()
    return [row[: len(reply) - 1] for row, reply in zip(values, replies, strict=True)]


def _log_probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log softmax of ``logits`` [..., vocabulary] at ``tokens`` [...], in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _rows_at_once(prompt: int, vocabulary: int, budget: int) -> Callable[[tuple[int, Tokens, float]], int]:
    """How many rows fit, by the longest reply among them: into the budget, and with their logits."""

    def count(longest: tuple[int, Tokens, float]) -> int:
        reply = len(longest[1])
        return min(budget // (prompt + reply), LOGITS_AT_ONCE // (reply * vocabulary))

    return count
