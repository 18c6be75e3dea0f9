"""Log-probabilities of given replies from an engine that was built to sample.

Two ways to ask. Short replies that share their beginnings form a small tree: each beginning is a prompt after which one
token is generated, and the log-probabilities of the tokens that go on from there are read off (the prompt itself comes
from the prefix cache)::

    replies  7 1 | 8 1        asked  prompt -> {7, 8};  prompt 7 -> {1};  prompt 8 -> {1}

A long reply is put behind the prompt, but for its last token, and vLLM reports on every token of a prompt it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import SamplingParams

_MOST_TOKENS = 128  # whose log-probabilities vLLM reports at one place
_WORTH_A_TREE = 2  # beginnings per reply up to which generating one token after each is cheaper

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """How likely each of the tokens ``then`` is after ``start``; with ``whole`` also the tokens of ``start``."""

    start: Tokens
    then: Tokens
    whole: bool

    def params(self) -> SamplingParams:
        """What vLLM is asked."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=list(self.then),
            prompt_logprobs=0 if self.whole else None,
            detokenize=False,
            skip_clone=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def answers(self, output: Any) -> dict[Tokens, list[float]]:
        """By a beginning of a reply: the log-probabilities of its tokens, or of the last one alone."""
        known = []
        if self.whole:
            of_prompt = output.prompt_logprobs[len(output.prompt_logprobs) - len(self.start) :]
            known = [at[token].logprob for token, at in zip(self.start, of_prompt, strict=True)]
        at = output.outputs[0].logprobs[0]
        return {(*self.start, token): [*known, at[token].logprob] for token in self.then}


def questions(replies: Sequence[Tokens]) -> list[Question]:
    """What to ask about the replies to one prompt; nothing about empty ones."""
    different = dict.fromkeys(reply for reply in replies if reply)
    tree: dict[Tokens, dict[int, None]] = {}
    for reply in different:
        for place, token in enumerate(reply):
            tree.setdefault(reply[:place], {})[token] = None
    small = len(tree) <= _WORTH_A_TREE * len(different) and all(len(then) <= _MOST_TOKENS for then in tree.values())
    if small:
        return [Question(start, tuple(then), whole=False) for start, then in tree.items()]
    return [Question(reply[:-1], reply[-1:], whole=True) for reply in different]


def logprobs(reply: Tokens, answers: Mapping[Tokens, list[float]]) -> list[float]:
    """The log-probability of every token of a reply."""
    found = answers[reply] if reply else []
    return found if len(found) == len(reply) else [answers[reply[: place + 1]][0] for place in range(len(reply))]
