"""A stage of a round as an artifact of the store.

This is what plugin authors do not write: slicing, seeds, keys, files, progress and resume. Shard ``i`` of every table
belongs to shard ``i`` of the prompts, and a shard never splits the candidates of one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import AnsweredPrompt, Record
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.run.announcer import FinishedStage
from selfreward.core.run.context import Context, drain_counters
from selfreward.core.run.engines import EngineRoom
from selfreward.core.run.isolation import Needs
from selfreward.core.run.plan import Cost, PlannedStage
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.resources import Resources
from selfreward.core.run.sieve import Sieve
from selfreward.core.run.step import Work
from selfreward.core.store.artifacts import Artifact, Key
from selfreward.core.store.aside import Aside

T = TypeVar("T")


class KeyedStage:
    """A stage of a round: its plugin, the models it runs, and its artifact."""

    name = ""
    unit = "rows"
    trains = False

    def __init__(self, run: Resources, round: Round, choice: Choice) -> None:
        self.run, self.round, self.choice = run, round, choice
        self.plugin = choice.build()

    @property
    def room(self) -> EngineRoom:
        """The engine that its models are run on."""
        return self.run.engines.main

    @property
    def models(self) -> list[ModelRef]:
        """The models it runs, the one that writes first; none where it runs none."""
        return [self.room.ref(self.run.roles[role]) for role in self.plugin.models()]

    @property
    def model(self) -> ModelRef | None:
        """The model that writes; None where it runs none."""
        return next(iter(self.models), None)

    @property
    def by(self) -> str:
        """``llm_cot by M1``, for people."""
        return f"{self.choice.name} by {self.model.name}" if self.model else self.choice.name

    def context(self) -> Context:
        """What the plugin is given."""
        return self.run.context(self.room, self.model, self.round.name, self.round.iteration, self.name)

    def key(self, **inputs: Any) -> Key:
        """Everything the artifact depends on."""
        model, others = self.model, self.models[1:]
        parts: dict[str, Any] = {
            "round": self.round.name,
            "iteration": self.round.iteration,
            "seed": self.run.seed,
            "plugin": self.run.identity.of(self.choice, self.plugin),
            "model": [model.name, model.key] if model else None,
            "data": self.run.identity.data,
            **({"reference": others[0].key} if others else {}),
            **inputs,
        }
        return Key(self.name, parts | (self.run.identity.execution if model else {}))

    @property
    def needs(self) -> Needs:
        """What the work takes besides Python."""
        return Needs.trainer if self.trains else Needs.engine if self.model else Needs.nothing

    def cost(self, rows: int) -> Cost:
        """What so many rows ask of the model, at most."""
        return Cost(rows, 0) if self.model else Cost(0, 0)

    def make(self, key: Key, total: float | None, work: Work, aside: bool = False) -> Artifact:
        """The artifact of a key: from the store when it is there, else by ``work``, on from the last whole shard.

        ``aside``: the work may be done in a thread, while the reader of the shards goes on.
        """
        artifact = self.run.store.artifact(key)
        if self.run.options.dry_run:
            return self._plan(artifact, total)
        step = self.run.steps.begin(artifact, self.needs, self.name.replace("_", " "), total, work)

        def finished() -> None:
            self.run.log.add(self.name, artifact.figures)
            model = self.model.name if self.model else self.round.makes if self.trains else ""
            self.run.announcer.stage(
                FinishedStage(self.round, self.name, self.unit, model, artifact, step.seconds, step.why_new)
            )
            step.passed()

        if aside and step.is_mine:
            Aside(artifact, step.do, finished)
        else:
            step.do()
            finished()
        return artifact

    def _plan(self, artifact: Artifact, rows: float | None) -> Artifact:
        """Take note of what would be done, and do nothing."""
        artifact.reused = artifact.is_finished()
        artifact.expected = expected = len(artifact) if artifact.reused else None if rows is None else int(rows)
        cost = self.cost(expected) if expected is not None else None if self.model else Cost(0, 0)
        what = f"{self.name.replace('_', ' ')}: {self.choice.name}"
        model = self.model.name if self.model else self.round.makes if self.trains else "-"
        self.run.plan.add(PlannedStage(self.round.folder, what, model, expected, cost, artifact.reused), self.trains)
        return artifact

    def map_shards(
        self,
        artifact: Artifact,
        record: type[Record],
        bar: Bar,
        inputs: Iterable[Any],
        work: Callable[[Any, Context], list[Any]],
        sieve: Sieve | None = None,
    ) -> None:
        """One shard of output for each of input; shards that are there already are passed over (a sieve takes note)."""
        context = self.context()
        context.bar = bar
        for index, shard in enumerate(inputs):
            if index < len(artifact.shards):
                if sieve:
                    sieve.resume(artifact.rows(record, index), artifact.shards[index].examples)
                bar.settle(_size(shard))
                continue
            watch, waited = Stopwatch(), context.waited
            context.weight = _size(shard)
            rows = work(shard, context)
            seconds = watch.seconds - (context.waited - waited)
            self.write(artifact, record, rows, {**drain_counters(context), "seconds": seconds}, sieve)
            bar.settle(_size(shard))
        artifact.finish()

    def drain(self, rows: Iterable[T], names: Sequence[str]) -> list[T]:
        """The plugin's rows; an exception is told with plugin, stage and the row it happened at."""
        out: list[T] = []
        try:
            for row in rows:
                out.append(row)
        except SelfRewardError:
            raise
        except Exception as problem:
            at = names[min(len(out), len(names) - 1)] if names else "the first row"
            raise StageError(f"{self.where} failed at {at}: {type(problem).__name__}: {problem}") from problem
        return out

    def write(
        self,
        artifact: Artifact,
        record: type[Record],
        rows: list[Any],
        figures: Mapping[str, float],
        sieve: Sieve | None = None,
    ) -> None:
        """Add a shard; rows that do not have the record's types are told as the plugin's fault."""
        import pyarrow as pa

        try:
            artifact.write_shard(record, rows, figures, sieve.take_examples() if sieve else None)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
            raise StageError(f"{self.where} gave a row that is no {record.__name__}: {problem}") from problem

    @property
    def where(self) -> str:
        """``judge 'llm_cot' (iter-01, judgements)``, for messages."""
        return f"{self.choice.kind} '{self.choice.name}' ({self.round.folder}, {self.name})"


def expected(artifact: Artifact, each: int = 1) -> int | None:
    """Rows the artifact has, or will have at most; None when nobody can tell."""
    rows = len(artifact) if artifact.manifest else artifact.expected
    return None if rows is None else rows * each


def _size(shard: Sequence[Any]) -> int:
    if shard and isinstance(shard[0], AnsweredPrompt):
        return sum(len(group.candidates) for group in shard)
    return len(shard)
