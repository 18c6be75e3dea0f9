"""HH-RLHF: pairs of dialogues that are the same up to the last reply (:mod:`selfreward.formats.hh_rlhf`).

The shared part is the prompt; the last replies are ranked, ``chosen`` before ``rejected``. A row is refused whose
dialogues differ before the last reply, or where a turn is empty.
Source: arXiv:2204.05862; github.com/anthropics/hh-rlhf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward.formats.hh_rlhf import last_replies
from selfreward.plugins.data.human_answers import Exchange, HumanDataConfig, RowByRow


@dataclass
class HhRlhfConfig(HumanDataConfig):
    """Where the pairs are, and which part of them is for what."""

    WANTED: ClassVar[str] = "a file of chosen and rejected dialogues, data.path=train.jsonl.gz"


class HhRlhf(RowByRow):
    """Dialogues with two ranked replies."""

    columns = ("chosen", "rejected")
    config: HhRlhfConfig

    def exchange(self, row: dict[str, Any]) -> Iterator[Exchange]:
        messages, best, worst = last_replies(row)
        yield Exchange(messages, [(0, best), (1, worst)], compared=True)
