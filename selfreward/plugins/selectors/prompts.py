"""Prompts alone: the online optimizer that follows writes its own answers and has them judged while it trains.

Stages 2 and 3 are skipped in its round; sampler and judge work inside of stage 5.
Source: the prompts of PPO in arXiv:2203.02155 §3.2, "PPO dataset".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import Instruction, JudgedPrompt, Selector


@dataclass
class PromptsConfig:
    """``selector=prompts`` has no options."""


class Prompts(Selector):
    """Passes the prompts on."""

    writes = Instruction
    config: PromptsConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Instruction]:
        yield Instruction.of(judged.prompt)
