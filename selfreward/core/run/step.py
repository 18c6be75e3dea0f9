"""A step of the loop: an artifact is in the store, or it is made, here or in a child, by one process at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from selfreward.core.run.isolation import Needs
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.store.artifacts import Artifact
from selfreward.core.store.why_new import why_new

if TYPE_CHECKING:
    from selfreward.core.run.run import Run


class Step:
    """Made when the loop comes to it; :meth:`do` ends with the artifact complete."""

    def __init__(
        self, run: Run, artifact: Artifact, needs: Needs, name: str, total: float | None,
        work: Callable[[Artifact, Bar], None],
    ) -> None:  # fmt: skip
        self._run, self._artifact, self._name, self._total, self._work = run, artifact, name, total, work
        self._number = run.next_step()
        self._elsewhere = run.process.reach(self._number, artifact, needs)
        self.why_new = ""
        """Why it was not in the store; empty when it was, or when the store has nothing like it."""
        self.seconds = 0.0

    @property
    def is_mine(self) -> bool:
        """Whether the work is still to be done, and by this process."""
        return self._elsewhere is None and self._artifact.manifest is None

    def do(self) -> None:
        """Do the work, unless it is done."""
        artifact, run, watch = self._artifact, self._run, Stopwatch()
        # of several processes that train together, the first holds the lock
        with run.store.lock(artifact) if run.process.main else nullcontext():
            artifact.reused = artifact.is_finished()
            if not artifact.reused:
                self.why_new = why_new(run.store, artifact)
                with run.screen.bar(self._name, self._total) as bar:
                    self._work(artifact, bar)
        self.seconds = artifact.figures.get("seconds", watch.seconds)
        if self._elsewhere:
            artifact.reused, self.why_new = self._elsewhere.reused, self._elsewhere.why_new

    def passed(self) -> None:
        """Tell whoever follows this process."""
        self._run.process.passed(self._number, self._artifact, self.why_new)
