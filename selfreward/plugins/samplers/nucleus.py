"""Nucleus sampling: n answers to each prompt, drawn at a temperature from the smallest set of tokens with mass top-p.

The paper's N = 4 at T 0.7, top-p 0.9.
Source: arXiv:1904.09751 §3.1; settings arXiv:2401.10020 §3.1.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import Candidate, Prompt, Request, Sampler, StageContext, option, role


@dataclass
class NucleusConfig:
    """Options of ``sampler=nucleus``."""

    n: int = option(4, ge=1)
    """Answers per prompt."""
    temperature: float = option(0.7, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this much probability is sampled from; 1 = off."""
    top_k: int = option(0, ge=0)
    """Only this many of the likeliest tokens are sampled from; 0 = off."""
    max_new_tokens: int = option(512, ge=1)
    """Tokens an answer may have; longer ones are cut off and never trained on."""
    model: str = role("policy")
    """Role of the model that answers."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.n > 1 and self.temperature == 0:
            return [f"n={self.n} answers at temperature=0 are all the same: set temperature above 0, or n=1"]
        return []


class Nucleus(Sampler):
    """Asks the model for ``n`` answers."""

    uses_model = True
    config: NucleusConfig

    def sample(self, prompts: Sequence[Prompt], context: StageContext) -> Iterator[Candidate]:
        """``n`` candidates per prompt, all of one prompt together."""
        requests = [Request(p.messages, self.sampling, context.seed(p.prompt_id), self.n) for p in prompts]
        for prompt, replies in zip(prompts, context.generate(requests), strict=True):
            for k, reply in enumerate(replies):
                yield Candidate.of(
                    prompt,
                    reply.text,
                    k,
                    origin=context.model,
                    model=context.model,
                    token_ids=reply.token_ids,
                    finish_reason=reply.finish_reason,
                    seed=reply.seed,
                )
