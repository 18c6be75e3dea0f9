"""Measuring a model: its answers to the held-out prompts, and the evaluators. Kept in the store like any stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from selfreward.core.config.resolve import RunConfig
from selfreward.core.contracts.engine import Request, Sampling
from selfreward.core.contracts.evaluation import Evaluator, Metric
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.options import roles
from selfreward.core.contracts.records import AnsweredPrompt, Candidate, Judgement, Prompt
from selfreward.core.contracts.rounds import Choice
from selfreward.core.contracts.stages import Judge
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.run.context import MeasuringContext, drain_counters
from selfreward.core.run.engines import EngineRoom
from selfreward.core.run.isolation import Needs
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.resources import Resources
from selfreward.core.store.artifacts import Artifact, Key
from selfreward.core.store.tables import shards_of


@dataclass(frozen=True)
class Measurement:
    """What is known of a model."""

    name: str
    answers: Sequence[AnsweredPrompt] = ()
    key: str = ""
    metrics: list[Metric] = field(default_factory=list)


class Evaluation:
    """The evaluators of a run at work on one model after the other."""

    def __init__(self, run: Resources, config: RunConfig) -> None:
        self.run, self.options = run, config.options.evaluation
        self._evaluators = config.lists["evaluators"]
        self._loop_judge = config.choices["judge"]
        self._sampling = Sampling(
            self.options.temperature, self.options.top_p, max_new_tokens=self.options.max_new_tokens
        )

    @cached_property
    def judge(self) -> Choice:
        """The judge that evaluators ask: the loop's own where it asks a language model for words."""
        own: type[Judge] = self._loop_judge.plugin.load()
        return self._loop_judge if own.uses_model and own.writes_verdicts else self.options.judge

    @cached_property
    def held_out(self) -> list[Prompt]:
        """The prompts on which every model is compared."""
        return [row.prompt for row in self.run.data.split("evaluation", self.run.seed)][: self.options.n]

    def measure(self, model: ModelRef, previous: Measurement | None, kind: str = "policy") -> Measurement:
        """Answer the held-out prompts with the model and run every evaluator of its kind (``policy`` or ``reward``)."""
        choices = [choice for choice in self._evaluators if choice.plugin.load().measures == kind]
        if not choices:
            return Measurement(model.name)
        wanted = any(choice.plugin.load().uses_answers for choice in choices)
        held_out = self.held_out if wanted else []
        table = self._answers(model, held_out)
        if self.run.options.dry_run:
            names = ", ".join(choice.name for choice in choices)
            tokens = self.options.max_new_tokens
            self.run.plan.evaluation(model.name, len(held_out), tokens, names, table.is_finished())
            return Measurement(model.name)
        if wanted:
            answer = f"{model.name} answers"
            self._once(table, answer, len(held_out), lambda bar: self._answer(self.run.engines.main, model, table, bar))
        answers = _answered(held_out, table) if wanted else ()
        done = Measurement(model.name, answers, table.key.hash)
        lengths = [len(group.candidates[0].text) for group in answers]
        if lengths:
            mean = sum(lengths) / len(lengths)
            done.metrics.append(Metric(model.name, "loop", "response_length", mean, None, None, len(lengths)))
        for choice in choices:
            done.metrics.extend(self._evaluate(model, choice, done, previous))
        return done

    # ------------------------------------------------------------------ answers

    def _answers(self, model: ModelRef, held_out: list[Prompt]) -> Artifact:
        """The table of a model's answers to the held-out prompts, made or not."""
        parts = {
            "model": [model.name, model.key],
            "prompts": [p.prompt_id for p in held_out],
            "sampling": repr(self._sampling),
            "seed": self.run.seed,
        }
        return self.run.store.artifact(Key("answers", parts | self.run.identity.execution))

    def _answer(self, room: EngineRoom, model: ModelRef, artifact: Artifact, bar: Bar | None) -> None:
        """Fill the table, on from the last whole shard."""
        size = self.run.options.shard_size
        context = self.run.context(room, model, "evaluation")
        context.bar = bar
        for start in range(len(artifact), len(self.held_out), size):
            shard, watch = self.held_out[start : start + size], Stopwatch()
            context.weight = len(shard)
            requests = [Request(p.messages, self._sampling, context.seed(p.prompt_id)) for p in shard]
            rows = [
                Candidate.of(prompt, reply.text, 0, origin="evaluation", model=model.name, token_ids=reply.token_ids,
                             finish_reason=reply.finish_reason, seed=reply.seed)
                for prompt, [reply] in zip(shard, context.generate(requests), strict=True)
            ]  # fmt: skip
            artifact.write_shard(Candidate, rows, {**drain_counters(context), "seconds": watch.seconds})
            if bar:
                bar.settle(len(shard))
        artifact.finish()

    def _others_answers(self, room: EngineRoom, model: ModelRef) -> list[AnsweredPrompt]:
        """Another model's answers; no step of the loop, since who follows the loop does not see inside an evaluator."""
        table = self._answers(model, self.held_out)
        with self.run.store.lock(table):
            if not table.is_finished():
                self._answer(room, model, table, None)
        return _answered(self.held_out, table)

    # ------------------------------------------------------------------ evaluators

    def _evaluate(
        self, model: ModelRef, choice: Choice, done: Measurement, previous: Measurement | None
    ) -> list[Metric]:
        evaluator: Evaluator = choice.build()
        artifact = self.run.store.artifact(self._key(model, choice, evaluator, done, previous))

        def fill(bar: Bar) -> None:
            folder = artifact.folder / "files"
            folder.mkdir(parents=True, exist_ok=True)
            place = (self.run.engines.main, model)
            context = self._context(choice, place, bar, previous, lambda: done.answers, folder)
            watch = Stopwatch()
            try:
                rows = list(evaluator.evaluate(context))
            except SelfRewardError:
                raise
            except Exception as problem:
                where = f"evaluators '{choice.name}' on {model.name}"
                raise StageError(f"{where} failed: {type(problem).__name__}: {problem}") from problem
            artifact.write_shard(Metric, rows, {**drain_counters(context), "seconds": watch.seconds})
            if not any(folder.iterdir()):
                folder.rmdir()
            artifact.finish()

        self._once(artifact, f"{model.name} {choice.name}", None, fill)
        return [metric for shard in shards_of(artifact, Metric) for metric in shard]

    def _key(
        self, model: ModelRef, choice: Choice, evaluator: Evaluator, done: Measurement, previous: Measurement | None
    ) -> Key:
        run = self.run
        named = {said: self._place(said) for said, _ in roles(choice.config).values()}
        others = {said: place[1].key if place else None for said, place in named.items()}
        if evaluator.uses_policies:
            others |= {policy: run.roles[policy].key for policy in run.roles.policies()}
        parts = {
            "name": model.name,
            "model": model.key,
            "answers": done.key,
            "previous": [previous.name, previous.key] if previous else None,
            "evaluator": run.identity.of(choice, evaluator),
            "judge": run.identity.of(self.judge),
            "data": run.identity.data,
            "seed": run.seed,
            **({"others": others} if others else {}),
        }
        return Key("metrics", parts | run.identity.execution)

    def _context(
        self, choice: Choice, place: tuple[EngineRoom, ModelRef], bar: Bar | None,
        previous: Measurement | None, answering: Callable[[], Sequence[AnsweredPrompt]], folder: Path,
    ) -> MeasuringContext:  # fmt: skip
        run, judge = self.run, self.judge.build()
        asked = judge.asks()

        def other(role: str) -> MeasuringContext | None:
            found = self._place(role)
            if found is None:
                return None
            second = self._context(choice, found, bar, None, lambda: self._others_answers(*found), folder)
            second.counters = context.counters  # what the second model does is part of the evaluator's work
            return second

        context = MeasuringContext(
            run.files, *place, run.seed, ("evaluation", choice.name), bar,
            answering=answering,
            others=other,
            folder=folder,
            previous=(previous.name, previous.answers) if previous else None,
            policies=run.roles.policies(),
            roles=lambda role: run.engines.main.ref(run.roles[role]),
            judging=lambda answered, mine: _judge(judge, answered, mine),
            judges_rubric=asked.rubric if asked else None,
        )  # fmt: skip
        return context

    def _place(self, role: str) -> tuple[EngineRoom, ModelRef] | None:
        """A second model and the engine it runs on; None where nobody plays the role yet."""
        if role == "judge":
            room, models = self.run.engines.of_judge, self._loop_judge.build().models()
            return room, room.ref(self.run.roles[models[0] if models else "policy"])
        return (self.run.engines.main, self.run.roles[role]) if role in self.run.roles else None

    def _once(self, artifact: Artifact, name: str, total: float | None, fill: Callable[[Bar], None]) -> None:
        step = self.run.steps.begin(artifact, Needs.engine, name, total, lambda _, bar: fill(bar))
        step.do()
        self.run.announcer.measurement(name, artifact, step.seconds)
        step.passed()


def _answered(held_out: list[Prompt], table: Artifact) -> list[AnsweredPrompt]:
    return [AnsweredPrompt(p, [c]) for p, c in zip(held_out, table.rows(Candidate), strict=True)]


def _judge(judge: Judge, answered: Sequence[AnsweredPrompt], context: MeasuringContext) -> list[Judgement]:
    """The judge at work on the evaluator's context: same model, its own seeds."""
    context.weight = sum(len(group.candidates) for group in answered)
    if context.bar:
        context.bar.total = context.weight
    return list(judge.score(answered, context))
