"""What the stages of the round under way have counted."""

from __future__ import annotations

import time
from collections.abc import Mapping

from selfreward.core.run.engines import EngineRoom


class RoundLog:
    """Figures of one round at a time, by stage, and how busy the engine was while it generated."""

    def __init__(self, room: EngineRoom) -> None:
        self._room = room
        self.figures: dict[str, Mapping[str, float]] = {}
        self.engine_busy: float | None = None
        """Share of the generating phase in which the engine had work; None where nothing was generated."""
        self._began, self._busy = 0.0, 0.0

    def begin(self) -> None:
        """A new round."""
        self.figures, self.engine_busy = {}, None
        self._began, self._busy = time.perf_counter() - self._room.loading, self._room.busy

    def add(self, stage: str, figures: Mapping[str, float]) -> None:
        """A stage is finished; with the judgements the generating phase ends."""
        self.figures[stage] = figures
        if stage == "judgements" and (busy := self._room.busy - self._busy):
            self.engine_busy = busy / (time.perf_counter() - self._room.loading - self._began)

    @property
    def seconds(self) -> float:
        """Seconds of the stages so far; of reused ones, what they once took."""
        return sum(figures.get("seconds", 0.0) for figures in self.figures.values())
