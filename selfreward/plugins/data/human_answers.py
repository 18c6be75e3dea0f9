"""Prompts with the answers people gave, and which of them are held out.

Whether a prompt is held out depends on a hash of the prompt alone: no seed moves it, and neither does another row that
is added to the file. A prompt is never on both sides, however often it occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfreward import AnsweredPrompt, Candidate, Message, Prompt, digest


def answered(messages: str | Sequence[Message], answers: Iterable[tuple[int, str]], source: str) -> AnsweredPrompt:
    """A prompt with its (rank, text) answers, the best (lowest rank) first."""
    prompt = Prompt.of(messages, source)
    ordered = sorted(answers, key=lambda answer: answer[0])
    how = {"origin": "human", "model": "human", "finish_reason": "human"}
    return AnsweredPrompt(prompt, [Candidate.of(prompt, t, k, rank=rank, **how) for k, (rank, t) in enumerate(ordered)])


def is_ranked(group: AnsweredPrompt) -> bool:
    """Whether people preferred one of its answers to another."""
    return len({c.rank for c in group.candidates}) > 1


def position(prompt_id: str) -> float:
    """Where the prompt's hash falls in [0, 1); a share is held out by comparing with it."""
    return int(digest("held out", prompt_id), 16) / 16**16
