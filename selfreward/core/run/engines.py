"""The engines of a run: opened when somebody first asks for text, moved from model to model, closed before training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from selfreward.core.contracts.engine import Engine
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.options import plain, without_execution
from selfreward.core.contracts.records import digest
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.run.progress import Stopwatch


class EngineRoom:
    """One engine, on one model at a time.

    Stages in several threads may ask at once. An engine that is not ``concurrent`` serves them in turn.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._engine: Engine | None = None
        self._key = ""
        self._turn = threading.Condition()
        self._users = 0
        self._served: ModelRef | None = None
        self._since = 0.0
        self.busy = 0.0
        """Seconds in which the engine had work, loading apart."""
        self.loading = 0.0
        """Seconds in which models were loaded."""

    @property
    def foreign(self) -> bool:
        """Whether the engine runs a model of its own."""
        return bool(self.choice.plugin.load().foreign)

    def problems(self, model: ModelRef) -> list[str]:
        """What would go wrong with this model, before any work."""
        engine: Engine = self.choice.build()
        return engine.problems(model)

    def ref(self, model: ModelRef) -> ModelRef:
        """The model that is run when this one is asked for: a foreign engine has one of its own."""
        if not self.foreign:
            return model
        if self._served is None:
            engine: Engine = self.choice.build()
            name = engine.served()
            config = self.choice.config
            key = digest("served", name, without_execution(config, plain(config)))
            self._served = replace(model, name=name, path="", key=key)
        return self._served

    @contextmanager
    def on(self, model: ModelRef) -> Iterator[Engine]:
        """The engine, running this model, for as long as the caller needs it."""
        with self._turn:
            while self._users and not (self._key == model.key and self._engine and self._engine.concurrent):
                self._turn.wait()
            engine = self._opened(model)
            self._users += 1
            if self._users == 1:
                self._since = time.perf_counter()
        try:
            yield engine
        finally:
            with self._turn:
                self._users -= 1
                if not self._users:
                    self.busy += time.perf_counter() - self._since
                self._turn.notify_all()

    def _opened(self, model: ModelRef) -> Engine:
        if self._engine is None:
            self._engine = self.choice.build()
        if self._key != model.key:
            watch = Stopwatch()
            self._key = ""  # opening may fail half-way
            self._engine.open(model)
            self._key = model.key
            self.loading += watch.seconds
        return self._engine

    def release(self, wait: bool = True) -> None:
        """Give the memory back, before training. Without ``wait`` an engine that is at work is left alone."""
        with self._turn:
            while self._users and wait:
                self._turn.wait()
            if self._users:
                return
            if self._engine is not None:
                self._engine.close()
            self._engine, self._key = None, ""


class Engines:
    """The run's engine, and that of the loop's judge, which may be another (``judge_engine=``)."""

    def __init__(self, engine: Choice, judge_engine: Choice | None) -> None:
        self.main = EngineRoom(engine)
        self.of_judge = EngineRoom(judge_engine) if judge_engine else self.main

    def named(self) -> Mapping[str, EngineRoom]:
        """The engines by the option that chose them."""
        return {"engine": self.main} | ({"judge_engine": self.of_judge} if self.of_judge is not self.main else {})

    def judging(self, round: Round) -> EngineRoom:
        """The engine on which a round is judged: ``judge_engine`` is for the rounds of the loop."""
        return self.of_judge if round.is_loop else self.main

    def close(self, wait: bool = True) -> None:
        """Give all memory back."""
        for room in self.named().values():
            room.release(wait)
