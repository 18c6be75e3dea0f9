"""What the user sees while the run works: one bar per stage with rows/s and an ETA, one line when a stage is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed and speed >= 10 else f"{speed:,.1f} rows/s" if speed else "")


@dataclass
class Bar:
    """How far a stage is; ``draw`` is called with every change, by whoever shows it: a terminal, or the parent's."""

    name: str
    total: float | None
    draw: Callable[[Bar], None]
    shown: float = 0.0
    """Rows under way or done, in fractions while a batch is under way."""
    done: float = 0.0
    """Rows that are surely done."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Shown beside the bar, such as the loss."""

    def advance(self, rows: float) -> None:
        """Some rows more are under way or done."""
        self.shown += rows
        self.draw(self)

    def settle(self, rows: float) -> None:
        """So many rows more are done, exactly."""
        self.done += rows
        self.shown = self.done
        self.draw(self)

    def update(self, total: float | None, shown: float, figures: Mapping[str, float]) -> None:
        """All of it anew; an unknown total leaves the one that is known."""
        self.total = self.total if total is None else total
        self.shown, self.figures = shown, figures
        self.draw(self)


class Screen:
    """The terminal, or a plain log where there is none."""

    def __init__(self, console: Console | None = None) -> None:
        # a log file has no width; tables must not be folded there
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = 200
        self._bars = threading.Lock()
        self._progress: Progress | None = None

    def line(self, text: str, style: str = "") -> None:
        """One line of plain text; nothing in it is markup."""
        self.console.print(escape(text), style=style or None)

    def rule(self, text: str) -> None:
        """The head of a round."""
        self.console.print(f"\n[bold]{escape(text)}[/]")

    @contextmanager
    def bar(self, name: str, total: float | None) -> Iterator[Bar]:
        """A bar that goes away when the stage is done; stages that work at the same time have one each."""
        with self._bars:
            if self._progress is None:
                self._progress = self._new_progress()
                self._progress.start()
            progress = self._progress
            task = progress.add_task(name, total=total, figures="")

        def draw(bar: Bar) -> None:
            figures = " ".join(f"{figure} {value:.3g}" for figure, value in bar.figures.items())
            progress.update(task, total=bar.total, completed=bar.shown, figures=figures)

        try:
            yield Bar(name, total, draw)
        finally:
            with self._bars:
                progress.remove_task(task)
                if not progress.tasks:
                    progress.stop()
                    self._progress = None

    def _new_progress(self) -> Progress:
        columns = (
            TextColumn("  {task.description:<20}"), BarColumn(bar_width=30), MofNCompleteColumn(), _RateColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        hidden = not self.console.is_terminal
        return Progress(*columns, console=self.console, transient=True, speed_estimate_period=60, disable=hidden)

    def stage_done(self, name: str, rows: int, unit: str, seconds: float, note: str, reused: bool) -> None:
        """The line that stays: rows, seconds, rate, and what is worth knowing."""
        if reused:
            self.line(f"  {name:<20} {rows:>6,} {unit}, reused from the store{'; ' + note if note else ''}", "dim")
            return
        rate = f"{rows / seconds:,.0f} {unit}/s" if seconds > 0.05 and unit != "figures" else ""
        self.line(f"  {name:<20} {rows:>6,} {unit:<11} {seconds:>6.1f} s  {rate:<20} {note}".rstrip())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start
