"""What the core hands to a stage: the open model, seeds, counters, and the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from selfreward.core.contracts.data import Data
from selfreward.core.contracts.engine import Completion, Continuations, Engine, Likelihood, Request
from selfreward.core.contracts.model import ModelConfig, ModelRef
from selfreward.core.contracts.records import AnsweredPrompt, Judgement
from selfreward.core.run.engines import EngineRoom
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.text.rubric import Rubric, find_rubric


def _nobody(role: str) -> ModelRef:
    raise RuntimeError(f"this stage knows no model but its own, and none that plays '{role}'")


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
    roles: Callable[[str], ModelRef] = lambda role: _nobody(role)
    """Who plays a role."""
    counters: dict[str, float] = field(default_factory=dict)
    waited: float = 0.0
    """Seconds spent on waiting for the engine and on loading the model."""

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

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """The engine on this stage's model; what was spent on waiting for it is told from the stage's own time."""
        if self.ref is None:
            raise RuntimeError("this stage does not say uses_model = True, so there is no model to run")
        watch = Stopwatch()
        with self.room.on(self.ref) as engine:
            self.waited += watch.seconds
            yield engine

    def _finished(self, rows: int) -> Callable[[int], None]:
        """What moves the bar as the rows of one call are done."""
        bar, share = self.bar, self.weight / max(1, rows)
        return (lambda done: bar.advance(done * share)) if bar else (lambda done: None)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Run the model, with the bar moving as completions end."""
        if not requests:
            return []
        with self._engine() as engine:
            completions = engine.generate(requests, self._finished(sum(request.n for request in requests)))
        replies = [reply for group in completions for reply in group]
        self.count(
            completions=len(replies),
            new_tokens=sum(len(reply.token_ids) for reply in replies),
            too_long=sum(not (reply.token_ids or reply.text) and reply.finish_reason == "length" for reply in replies),
        )
        return completions

    def rewards(self, requests: Sequence[Continuations]) -> list[list[float | None]]:
        """Ask the reward model, with the bar moving as replies are done."""
        if not requests:
            return []
        with self._engine() as engine:
            worth = engine.rewards(requests, self._finished(sum(len(request.replies) for request in requests)))
        replies = [reply for group in worth for reply in group]
        self.count(rewarded=len(replies), too_long=sum(reply is None for reply in replies))
        return worth

    def of(self, model: str) -> Context:
        """This context on the model of another role; what that one does counts as this stage's work."""
        return replace(self, ref=self.roles(model), bar=None)

    def likelihoods(self, requests: Sequence[Continuations]) -> list[list[Likelihood]]:
        """Weigh replies, with the bar moving as they are done."""
        if not requests:
            return []
        with self._engine() as engine:
            weighed = engine.likelihoods(requests, self._finished(sum(len(request.replies) for request in requests)))
        replies = [reply for group in weighed for reply in group]
        self.count(weighed=len(replies), too_long=sum(not reply.token_ids for reply in replies))
        return weighed


@dataclass
class MeasuringContext(Context):
    """The :class:`selfreward.EvaluationContext` of one evaluator."""

    policies: Sequence[str] = ()
    """The policies made so far, in order."""
    answering: Callable[[], Sequence[AnsweredPrompt]] = tuple
    """Makes the model's answers to the held-out prompts, or reads them from the store."""
    others: Callable[[str], MeasuringContext | None] | None = None
    folder: Path = Path()
    """Where the evaluator may leave files; they are kept with its figures."""
    previous: tuple[str, Sequence[AnsweredPrompt]] | None = None
    judging: Callable[[Sequence[AnsweredPrompt], MeasuringContext], list[Judgement]] | None = None
    judges_rubric: str | None = None
    """``judge.rubric`` of the judge that :meth:`judge` asks."""

    @cached_property
    def answers(self) -> Sequence[AnsweredPrompt]:
        """The model's own answers to the held-out prompts, one each."""
        return self.answering()

    @property
    def path(self) -> Path:
        """Folder of the model's checkpoint."""
        assert self.ref is not None
        return Path(self.ref.path)

    def other(self, model: str) -> MeasuringContext | None:
        """This context on another model; None where no model plays that role yet."""
        assert self.others is not None
        return self.others(model)

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
