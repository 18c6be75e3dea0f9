"""What a loss and the trainer hand each other: TRL's classes there, the logs of the steps back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Logs = Mapping[str, float]
"""What a trainer logged in a step."""


class Trl(NamedTuple):
    """Classes of TRL's: a trainer, its arguments, and the collator of its rows."""

    trainer: type
    arguments: type
    collator: type


def tail_mean(tail: Sequence[Logs], name: str) -> float:
    """Mean of one logged figure over the last steps."""
    return math.fsum(logs[name] for logs in tail) / len(tail)
