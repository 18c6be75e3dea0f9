"""The contract of monitors: the events of a run that they and the lifecycle hooks see, and what they may find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from selfreward.core.contracts.evaluation import Metric


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


class Severity(Enum):
    """What a finding means for the run."""

    note = "note"
    warning = "warning"
    stop = "stop"


@dataclass(frozen=True)
class Finding:
    """What a monitor has to say: the numbers, the likely cause, and the knob that helps."""

    severity: Severity
    text: str


class Monitor:
    """Watches a run: health gates, trackers, reports. It sees finished stages and changes nothing.

    Each method may return findings: notes and warnings are shown, a ``stop`` ends the run with exit code 3; what is
    done stays done. Artifacts that were reused have their events like new ones (``event.reused``).
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def run_started(self, event: Event) -> Iterable[Finding]:
        """The config is valid and work begins."""
        return ()

    def stage_finished(self, event: Event) -> Iterable[Finding]:
        """A stage's artifact is complete: ``event.folder``, ``event.figures``."""
        return ()

    def iteration_finished(self, event: Event) -> Iterable[Finding]:
        """A model has been made and measured: ``event.model``, ``event.metrics``."""
        return ()

    def run_finished(self, event: Event) -> Iterable[Finding]:
        """Everything is done: ``event.metrics`` holds all figures, ``event.run_dir / "metrics.json"`` is written."""
        return ()

    def run_failed(self, event: Event) -> Iterable[Finding]:
        """The run ends with ``event.error``."""
        return ()
