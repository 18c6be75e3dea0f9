"""LLM as a judge: the model reviews an answer by a rubric, thinking aloud, and ends with a score.

score = mean of the readable votes; each vote is one sampled review (3 at T 0.7, top-p 0.9).
Source: arXiv:2401.10020 §2.2 (step 3), figure 2 and §3.1.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from selfreward import (
    AnsweredPrompt,
    Completion,
    FileContext,
    Judge,
    Judgement,
    Prompt,
    Request,
    Rubric,
    Sampling,
    StageContext,
    option,
)


@dataclass
class LlmCotConfig:
    """Options of ``judge=llm_cot``."""

    rubric: str | None = None
    """Name of the rubric, or a path to its .yaml file; None takes the one the model declares."""
    votes: int = option(3, ge=1)
    """Reviews per answer; the score is their mean."""
    temperature: float = option(0.7, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this much probability is sampled from."""
    max_new_tokens: int = option(256, ge=1)
    """Tokens a review may have."""
    model: str = "policy"
    """Role of the model that judges."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.votes > 1 and self.temperature == 0:
            return [f"votes={self.votes} at temperature=0 are all the same: set temperature above 0, or votes=1"]
        return []


class LlmCot(Judge):
    """Asks the model for ``votes`` reviews of each answer."""

    uses_model = True
    config: LlmCotConfig

    def files(self, context: FileContext) -> list[Path]:
        """The rubric."""
        return [context.rubric_path(self.config.rubric)]

    def problems(self, context: FileContext) -> list[str]:
        """A rubric that wants what this judge does not have."""
        rubric = context.rubric(self.config.rubric)
        if "{reference}" in rubric.template:
            return [f"judge=llm_cot cannot fill {{reference}} in rubric {rubric.name}: set another judge.rubric"]
        return []

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate; all reviews of all candidates are one call of the model."""
        c, rubric = self.config, context.rubric(self.config.rubric)
        how = Sampling(c.temperature, c.top_p, max_new_tokens=c.max_new_tokens)
        judged = [(group.prompt, candidate) for group in answered for candidate in group.candidates]
        requests = [
            Request(
                [{"role": "user", "content": rubric.render(instruction=instruction(prompt), response=candidate.text)}],
                how,
                context.seed(candidate.candidate_id),
                c.votes,
                rubric.reply_prefix,
            )
            for prompt, candidate in judged
        ]
        for (_, candidate), request, replies in zip(judged, requests, context.generate(requests), strict=True):
            votes = [vote(reply, rubric) for reply in replies]
            readable = [v for v in votes if v is not None]
            yield Judgement(
                candidate.candidate_id,
                "llm_cot",
                context.model,
                rubric.name,
                votes,
                fmean(readable) if readable else None,
                [rubric.reply_prefix + reply.text for reply in replies],
                request.seed,
            )


def vote(reply: Completion, rubric: Rubric) -> float | None:
    """The score in the review's new text, or None.

    A review that the token limit cut off at a number is unreadable: ``Score: 1`` may have become ``Score: 10``.
    """
    if reply.finish_reason == "length" and reply.text[-1:] in "0123456789./":
        return None
    return rubric.read(reply.text)


def instruction(prompt: Prompt) -> str:
    """What the judge is shown as the instruction.

    A single user turn stands as it is. A conversation is written out, one paragraph per turn, ``User: ...``,
    ``Assistant: ...`` (``System: ...``), and the response that is judged answers its last turn.
    """
    if len(prompt.messages) == 1:
        return prompt.text
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in prompt.messages)
