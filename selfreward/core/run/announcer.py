"""Who is told what happens: the terminal, lifecycle hooks and monitors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.core.config.registry import registry
from selfreward.core.contracts.monitors import Event, Finding, Monitor, Severity
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.run.folder import link
from selfreward.core.run.progress import Screen
from selfreward.core.store.artifacts import STAGE_FOLDERS, Artifact

STYLES = {Severity.note: "", Severity.warning: "yellow"}


@dataclass(frozen=True)
class FinishedStage:
    """A stage of a round whose artifact is complete."""

    round: Round
    name: str
    """``prompts``, ``candidates``, ``judgements``, ``training_set`` or ``model``."""
    unit: str
    """What its rows are called."""
    model: str
    """Role of the model that it ran or made; empty where it did neither."""
    artifact: Artifact
    seconds: float
    why_new: str
    """Why it was not in the store; empty when it was."""


class Announcer:
    """Tells what has happened, unless this process works for another one that does (``silent``)."""

    def __init__(self, screen: Screen, folder: Path, monitors: Iterable[Choice], silent: bool) -> None:
        self.screen, self.folder, self._silent = screen, folder, silent
        self._monitors: list[tuple[Choice, Monitor]] = [(choice, choice.build()) for choice in monitors]

    def event(self, what: str, **facts: Any) -> None:
        """Tell lifecycle hooks and monitors of an event, and show what they find.

        Raises:
            StageError: a monitor stops the run.
        """
        if self._silent:
            return
        event = Event(self.folder, **facts)
        registry().call(f"selfreward_{what}", event=event)
        findings = [each for choice, monitor in self._monitors for each in _findings(choice, monitor, what, event)]
        for finding in findings:
            if finding.severity is not Severity.stop:
                self.screen.line(f"  {finding.severity.value}: {finding.text}", STYLES[finding.severity])
        stops = [finding.text for finding in findings if finding.severity is Severity.stop]
        if stops and what != "run_failed":
            raise StageError("; ".join(stops))

    def stage(self, done: FinishedStage) -> None:
        """A stage is finished: link its artifact into the run's folder, and tell everybody."""
        if self._silent:
            return
        artifact, figures = done.artifact, done.artifact.figures
        link(self.folder / done.round.folder / STAGE_FOLDERS[done.name], artifact.folder)
        count = int(figures.get("rows" if done.name != "model" else "training_rows", 0))
        name = done.name.replace("_", " ")
        self.screen.stage_done(name, count, done.unit, done.seconds, remarks(done.name, figures), artifact.reused)
        if done.why_new:
            self.screen.line(f"  {'':<20} not in the store: {done.why_new}", "dim")
        self.event(
            "stage_finished",
            round=done.round.name,
            iteration=done.round.iteration,
            stage=done.name,
            model=done.model,
            folder=artifact.folder,
            figures=figures,
            reused=artifact.reused,
        )

    def measurement(self, name: str, artifact: Artifact, seconds: float) -> None:
        """A part of a model's evaluation is done: its answers, or an evaluator's figures and files."""
        figures, parts = artifact.figures, artifact.key.parts
        if self._silent or not figures["rows"]:
            return
        unit = "answers" if artifact.key.stage == "answers" else "figures"
        if unit == "answers":
            link(self.folder / "evaluation" / parts["model"][0] / "answers", artifact.folder)
        elif (artifact.folder / "files").is_dir():
            link(self.folder / "evaluation" / parts["name"] / parts["evaluator"]["name"], artifact.folder / "files")
        self.screen.stage_done(name, int(figures["rows"]), unit, seconds, remarks("", figures), artifact.reused)


def _findings(choice: Choice, monitor: Monitor, what: str, event: Event) -> list[Finding]:
    """What a monitor finds in an event."""
    try:
        return list(getattr(monitor, what)(event))
    except SelfRewardError:
        raise
    except Exception as problem:
        where = f"monitors '{choice.name}' failed at {what} ({event.round or 'run'} {event.stage})".replace(" )", ")")
        if what == "run_failed":  # the failure that is being told of comes first
            return [Finding(Severity.warning, f"{where}: {type(problem).__name__}: {problem}")]
        raise StageError(f"{where}: {type(problem).__name__}: {problem}") from problem


def remarks(stage: str, figures: Mapping[str, float]) -> str:
    """What is worth knowing about a stage, in a few words."""
    notes = [f"{k.removeprefix('dropped: ')} {v:.0f}" for k, v in figures.items() if k.startswith("dropped: ")]
    if figures.get("votes"):
        notes.append(f"{1 - figures['unreadable'] / figures['votes']:.1%} of the verdicts readable")
    if figures.get("constrained"):
        notes.append(f"{figures['constrained']:.0f} verdicts constrained")
    if figures.get("score_mass") and figures.get("votes"):
        notes.append(f"{figures['score_mass'] / figures['votes']:.0%} of the probability on the scores")
    if stage == "training_set" and figures.get("prompts"):
        notes.append(f"from {figures['rows'] / figures['prompts']:.1%} of the prompts")
    if figures.get("cut_off"):
        notes.append(f"{figures['cut_off']:.0f} cut off at the token limit")
    if figures.get("too_long"):
        notes.append(f"{figures['too_long']:.0f} too long for the context")
    if stage == "model" and "loss" in figures:
        notes.append(f"loss {figures['loss']:.3f}")
    return ", ".join(notes)
