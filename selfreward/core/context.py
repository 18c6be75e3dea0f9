"""What the core hands to a stage: the open model, seeds, counters, and the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfreward.core.data import Data
from selfreward.core.engine import Completion, Engine, Request
from selfreward.core.model import ModelConfig, ModelRef
from selfreward.core.progress import Bar
from selfreward.core.records import AnsweredPrompt, Judgement
from selfreward.core.rounds import Choice
from selfreward.core.rubric import Rubric, find_rubric


class EngineRoom:
    """The one engine of a run. It is opened when somebody first asks for text and moved from model to model."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._engine: Engine | None = None
        self._key = ""

    def on(self, model: ModelRef) -> Engine:
        """The engine, running this model."""
        if self._engine is None:
            self._engine = self._choice.build()
        if self._key != model.key:
            self._engine.open(model)
            self._key = model.key
        return self._engine

    def release(self) -> None:
        """Give the memory back, before training."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._key = None, ""


def derive_seed(*ids: str | int) -> int:
    """A seed below 2**62 that depends on all ids. Leaves room for ``seed + k``."""
    text = "\x1f".join(str(i) for i in ids)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


@dataclass(frozen=True)
class Files:
    """The :class:`selfreward.FileContext` of a run: what is known before any work."""

    data: Data
    model_config: ModelConfig

    def rubric(self, name: str | None = None) -> Rubric:
        """The rubric of that name; None = the one the model declares."""
        return Rubric.load(name or self.model_config.rubric)

    def rubric_path(self, name: str | None = None) -> Path:
        """The rubric's file."""
        return find_rubric(name or self.model_config.rubric)


@dataclass
class Context:
    """The :class:`selfreward.StageContext` of one stage."""

    files: Files
    room: EngineRoom
    ref: ModelRef | None
    """The model that ``generate`` runs; None for stages that use none."""
    run_seed: int
    scope: tuple[str | int, ...]
    """Round, iteration and stage: what seeds depend on besides the row."""
    bar: Bar | None = None
    weight: float = 0.0
    """Rows the next ``generate`` stands for, on the bar."""
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Role of the model."""
        return self.ref.name if self.ref else "-"

    @property
    def data(self) -> Data:
        """The run's data."""
        return self.files.data

    def rubric(self, name: str | None = None) -> Rubric:
        """The rubric of that name; None = the one the model declares."""
        return self.files.rubric(name)

    def seed(self, *ids: str | int) -> int:
        """A seed below 2**62 for a row."""
        return derive_seed(self.run_seed, *self.scope, *ids)

    def count(self, **figures: float) -> None:
        """Add to the stage's counters."""
        for name, value in figures.items():
            self.counters[name] = self.counters.get(name, 0) + float(value)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Run the model, with the bar moving as completions end."""
        if self.ref is None:
            raise RuntimeError("this stage does not say uses_model = True, so no model is there to generate")
        if not requests:
            return []
        share = self.weight / sum(request.n for request in requests)
        bar = self.bar
        finished = (lambda rows: bar.advance(rows * share)) if bar else (lambda rows: None)
        completions = self.room.on(self.ref).generate(requests, finished)
        replies = [reply for group in completions for reply in group]
        self.count(
            completions=len(replies),
            new_tokens=sum(len(reply.token_ids) for reply in replies),
            too_long=sum(not reply.token_ids and reply.finish_reason == "length" for reply in replies),
        )
        return completions


@dataclass
class MeasuringContext(Context):
    """The :class:`selfreward.EvaluationContext` of one evaluator."""

    answers: Sequence[AnsweredPrompt] = ()
    previous: tuple[str, Sequence[AnsweredPrompt]] | None = None
    judging: Callable[[Sequence[AnsweredPrompt], MeasuringContext], list[Judgement]] | None = None
    judges_rubric: str | None = None
    """``judge.rubric`` of the judge that :meth:`judge` asks."""

    def rubric(self, name: str | None = None) -> Rubric:
        """The rubric of that name; None = the one the judge uses."""
        return super().rubric(name or self.judges_rubric)

    def judge(self, answered: Sequence[AnsweredPrompt]) -> list[Judgement]:
        """The run's LLM judge, with this model as the judge."""
        assert self.judging is not None
        return self.judging(answered, self)


def drain_counters(context: Context) -> Mapping[str, float]:
    """The counters since the last call."""
    counters, context.counters = context.counters, {}
    return counters
