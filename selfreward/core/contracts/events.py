"""What lifecycle plugins (trackers, health gates, reports) are told: one frozen event per hook call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfreward.core.contracts.stages import Metric


@dataclass(frozen=True)
class Event:
    """Something that has just happened in a run. Fields that do not apply are empty."""

    run_dir: Path
    round: str = ""
    """Name of the round: ``ift``, ``eft``, ``loop``, ...; empty for events of the whole run."""
    iteration: int = 0
    """0 for the rounds before the loop, then 1, 2, ..."""
    stage: str = ""
    """``prompts``, ``candidates``, ``judgements``, ``training_set`` or ``model``."""
    model: str = ""
    """Role of the model the stage ran or made."""
    folder: Path | None = None
    """The stage's artifact: Parquet shards, or a checkpoint."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Rows, seconds, and the stage's own counters."""
    reused: bool = False
    """Whether the artifact came from the store."""
    metrics: Sequence[Metric] = ()
    """The evaluators' figures: of one model (``iteration_finished``) or of the whole run (``run_finished``)."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The composed config (``run_started``)."""
    error: str = ""
    """Why the run failed (``run_failed``)."""
