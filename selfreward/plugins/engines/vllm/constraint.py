"""Choices and regular expressions as grammars of the reply's text (xgrammar, arXiv:2411.15100).

A grammar knows text, so it lets in every way to spell it. Choices are spelled as engine=transformers spells them: only
tokens of their plain text are allowed, and the token that ends a turn. (xgrammar 0.2.8 has grammars of tokens, too, but
its cache takes two of them for the same when they differ in nothing but the tokens.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from selfreward import Chat, Sampling

_FORBIDDEN = -100.0  # vLLM's lowest logit bias


def constraint(sampling: Sampling, chat: Chat, stop_ids: Iterable[int], continues: bool) -> dict[str, Any]:
    """The constraint of a sampling, as arguments of vLLM's ``SamplingParams``; nothing where there is none."""
    from vllm.sampling_params import StructuredOutputsParams

    if sampling.choices:
        paths = [chat.encode_reply(choice, continues=continues) for choice in sampling.choices]
        # the text that the tokens show, with the space before the first one that a tokenizer may have put there
        texts = [chat.decode(path, continues=True) for path in paths]
        allowed = sorted({token for path in paths for token in path})
        return {"structured_outputs": StructuredOutputsParams(choice=texts), "allowed_token_ids": allowed}
    if sampling.regex:
        pattern = sampling.regex if continues else f"({_space_before_replies(chat)}({sampling.regex}))"
        # a control token has a text that a pattern may let in, and none in the reply
        controls = {i for i in chat.tokenizer.added_tokens_decoder if not chat.decode([i])}
        bias = dict.fromkeys(controls.difference(stop_ids), _FORBIDDEN)
        return {"structured_outputs": StructuredOutputsParams(regex=pattern), "logit_bias": bias or None}
    return {}


def _space_before_replies(chat: Chat) -> str:
    """A pattern for what stands before a reply's text without being part of it; it may be left out."""
    space = chat.decode(chat.encode_reply("a"), continues=True).removesuffix("a")
    return "".join(rf"\x{ord(c):02x}" for c in space).join(("(", ")?")) if space else ""
