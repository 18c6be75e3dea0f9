"""``report.html`` when a run has ended, well or badly; ``selfreward report RUN`` writes the same at any time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfreward import Event, Finding, Monitor, Severity, build_report, option


@dataclass
class ReportConfig:
    """How much the report shows."""

    prompts: int = option(40, ge=0)
    """Prompts shown of each round, drawn with the run's seed, each with its answers, votes and selection."""


class Report(Monitor):
    """Writes the report into the run's folder."""

    config: ReportConfig

    def __init__(self, config: ReportConfig) -> None:
        super().__init__(config)
        self.started = False

    def run_started(self, event: Event) -> Iterable[Finding]:
        """From here on the folder is this run's; what fails before must not touch an earlier run's report."""
        self.started = True
        return ()

    def run_finished(self, event: Event) -> Iterable[Finding]:
        return [self._write(event)]

    def run_failed(self, event: Event) -> Iterable[Finding]:
        """The report of what was finished, with the error at its top."""
        return [self._write(event)] if self.started else []

    def _write(self, event: Event) -> Finding:
        try:
            return Finding(Severity.note, f"report {build_report(event.run_dir, self.config.prompts, event.error)}")
        except Exception as problem:  # a run that has done its work, or has an error to tell, does not end in another
            return Finding(Severity.warning, f"no report could be written: {type(problem).__name__}: {problem}")
