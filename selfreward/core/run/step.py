"""A step of the loop: an artifact is in the store, or it is made, here or in a child, by one process at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from selfreward.core.run.isolation import Inline, Needs, Passed
from selfreward.core.run.progress import Bar, Screen, Stopwatch
from selfreward.core.run.round_log import RoundLog
from selfreward.core.store.artifacts import Artifact, Store
from selfreward.core.store.why_new import why_new

Work = Callable[[Artifact, Bar], None]
"""Makes an artifact, with the bar moving."""


class Steps:
    """The steps of a run, numbered in the order in which the loop comes to them: the same in every process."""

    def __init__(self, store: Store, process: Inline, screen: Screen, log: RoundLog) -> None:
        self.store, self.process, self.screen, self.log = store, process, screen, log
        self._number = 0

    def begin(self, artifact: Artifact, needs: Needs, name: str, total: float | None, work: Work) -> Step:
        """The next step; where a child does it, it is done when this returns."""
        self._number += 1
        elsewhere = self.process.reach(self._number, artifact, needs)
        if elsewhere and elsewhere.engine_busy is not None:
            self.log.engine_busy = elsewhere.engine_busy
        return Step(self, self._number, artifact, elsewhere, name, total, work)


class Step:
    """One of them; :meth:`do` ends with the artifact complete."""

    def __init__(
        self, steps: Steps, number: int, artifact: Artifact, elsewhere: Passed | None, name: str, total: float | None,
        work: Work,
    ) -> None:  # fmt: skip
        self._steps, self._number, self._artifact, self._elsewhere = steps, number, artifact, elsewhere
        self._name, self._total, self._work = name, total, work
        self.why_new = ""
        """Why it was not in the store; empty when it was, or when the store has nothing like it."""
        self.seconds = 0.0

    @property
    def is_mine(self) -> bool:
        """Whether the work is still to be done, and by this process."""
        return self._elsewhere is None and self._artifact.manifest is None

    def do(self) -> None:
        """Do the work, unless it is done."""
        artifact, steps, watch = self._artifact, self._steps, Stopwatch()
        # of several processes that train together, the first holds the lock
        with steps.store.lock(artifact) if steps.process.main else nullcontext():
            artifact.reused = artifact.is_finished()
            if not artifact.reused:
                self.why_new = why_new(steps.store, artifact)
                with steps.screen.bar(self._name, self._total) as bar:
                    self._work(artifact, bar)
        self.seconds = artifact.figures.get("seconds", watch.seconds)
        if self._elsewhere:
            artifact.reused, self.why_new = self._elsewhere.reused, self._elsewhere.why_new

    def passed(self) -> None:
        """Tell whoever follows this process."""
        steps = self._steps
        steps.process.passed(Passed(self._number, self._artifact.reused, self.why_new, steps.log.engine_busy))
