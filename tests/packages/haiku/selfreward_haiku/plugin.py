"""What selfreward finds: a judge, a metric, a folder of configs, and a line in a log for every finished stage."""

from __future__ import annotations

from pathlib import Path

from selfreward import Event, Plugin, hookimpl
from selfreward_haiku.judge import HaikuConfig
from selfreward_haiku.rhyme import RhymeConfig


@hookimpl
def selfreward_judges() -> list[Plugin]:
    """The judge."""
    return [Plugin("haiku", "selfreward_haiku.judge:Haiku", HaikuConfig, source="Bashō, 1686")]


@hookimpl
def selfreward_metrics() -> list[Plugin]:
    """The metric."""
    return [Plugin("rhyme", "selfreward_haiku.rhyme:Rhyme", RhymeConfig)]


@hookimpl
def selfreward_conf() -> Path:
    """A rubric and an experiment."""
    return Path(__file__).parent / "conf"


@hookimpl
def selfreward_stage_finished(event: Event) -> None:
    """Keep a log in the run's folder."""
    with (event.run_dir / "haiku.log").open("a", encoding="utf-8") as log:
        log.write(f"{event.round} {event.iteration} {event.stage} {event.figures.get('rows', 0):g}\n")
