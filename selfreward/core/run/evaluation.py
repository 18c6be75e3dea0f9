"""Measuring a model: its answers to the held-out prompts, and the evaluators. Kept in the store like any stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from selfreward.core.contracts.engine import Request, Sampling
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import AnsweredPrompt, Candidate, Judgement, Prompt
from selfreward.core.contracts.rounds import Choice
from selfreward.core.contracts.stages import Metric
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.run.context import Context, EngineRoom, MeasuringContext, drain_counters
from selfreward.core.run.isolation import Needs
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.step import Step
from selfreward.core.store.artifacts import Artifact, Key
from selfreward.core.store.tables import shards_of

if TYPE_CHECKING:
    from selfreward.core.run.run import Run


OTHER_MODELS = ("against", "judge_model")
"""Options of evaluators that name a second model."""


@dataclass(frozen=True)
class Measurement:
    """What is known of a model."""

    name: str
    answers: Sequence[AnsweredPrompt] = ()
    key: str = ""
    metrics: list[Metric] = field(default_factory=list)


def measure(run: Run, ref: ModelRef, previous: Measurement | None, kind: str = "policy") -> Measurement:
    """Answer the held-out prompts with the model and run every evaluator of its kind (``policy`` or ``reward``)."""
    choices = [choice for choice in run.config.lists["evaluators"] if choice.plugin.load().measures == kind]
    if not choices:
        return Measurement(ref.name)
    wanted = any(choice.plugin.load().uses_answers for choice in choices)
    held_out = _held_out(run) if wanted else []
    table = _answers(run, ref, held_out)
    if run.options.dry_run:
        names = ", ".join(choice.name for choice in choices)
        run.plan.evaluation(ref.name, len(held_out), run.options.evaluation.max_new_tokens, names, table.is_finished())
        return Measurement(ref.name)
    if wanted:
        _once(run, table, f"{ref.name} answers", len(held_out), lambda bar: _answer(run, run.room, ref, table, bar))
    answers = _answered(held_out, table) if wanted else ()
    done = Measurement(ref.name, answers, table.key.hash)
    lengths = [len(group.candidates[0].text) for group in answers]
    if lengths:
        mean = sum(lengths) / len(lengths)
        done.metrics.append(Metric(ref.name, "loop", "response_length", mean, None, None, len(lengths)))
    for choice in choices:
        done.metrics.extend(_evaluate(run, ref, choice, done, previous))
    return done


def _held_out(run: Run) -> list[Prompt]:
    return [row.prompt for row in run.data.split("evaluation", run.seed)][: run.options.evaluation.n]


def _answered(held_out: list[Prompt], table: Artifact) -> list[AnsweredPrompt]:
    return [AnsweredPrompt(p, [c]) for p, c in zip(held_out, table.rows(Candidate), strict=True)]


def _answers(run: Run, ref: ModelRef, held_out: list[Prompt]) -> Artifact:
    """The table of a model's answers to the held-out prompts, made or not."""
    parts = {
        "model": [ref.name, ref.key],
        "prompts": [p.prompt_id for p in held_out],
        "sampling": repr(_sampling(run)),
        "seed": run.seed,
    }
    return run.store.artifact(Key("answers", parts | run.execution_parts()))


def _sampling(run: Run) -> Sampling:
    options = run.options.evaluation
    return Sampling(options.temperature, options.top_p, 0, options.max_new_tokens)


def _answer(run: Run, room: EngineRoom, ref: ModelRef, artifact: Artifact, bar: Bar | None) -> None:
    """Fill the table, on from the last whole shard."""
    held_out, size = _held_out(run), run.options.shard_size
    context = Context(run.files, room, ref, run.seed, ("evaluation",), bar)
    for start in range(len(artifact), len(held_out), size):
        shard, watch = held_out[start : start + size], Stopwatch()
        context.weight = len(shard)
        requests = [Request(p.messages, _sampling(run), context.seed(p.prompt_id)) for p in shard]
        rows = [
            Candidate.of(prompt, reply.text, 0, origin="evaluation", model=ref.name, token_ids=reply.token_ids,
                         finish_reason=reply.finish_reason, seed=reply.seed)
            for prompt, [reply] in zip(shard, context.generate(requests), strict=True)
        ]  # fmt: skip
        artifact.write_shard(Candidate, rows, {**drain_counters(context), "seconds": watch.seconds})
        if bar:
            bar.settle(len(shard))
    artifact.finish()


def _evaluate(run: Run, ref: ModelRef, choice: Choice, done: Measurement, previous: Measurement | None) -> list[Metric]:
    evaluator = choice.build()
    named = [role for option in OTHER_MODELS if (role := getattr(choice.config, option, None))]
    others = {role: place[1].key if (place := _place(run, role)) else None for role in named}
    if evaluator.uses_policies:
        others |= {policy: run.role(policy).key for policy in run.policies()}
    parts = {
        "name": ref.name,
        "model": ref.key,
        "answers": done.key,
        "previous": [previous.name, previous.key] if previous else None,
        "evaluator": run.identity(choice, evaluator),
        "judge": run.identity(run.evaluation_judge()),
        "data": run.data_key,
        "seed": run.seed,
        **({"others": others} if others else {}),
    }
    artifact = run.store.artifact(Key("metrics", parts | run.execution_parts()))

    def fill(bar: Bar) -> None:
        folder = artifact.folder / "files"
        folder.mkdir(parents=True, exist_ok=True)
        context = _context(run, choice, (run.room, ref), bar, previous, lambda: done.answers, folder)
        watch = Stopwatch()
        try:
            rows = list(evaluator.evaluate(context))
        except SelfRewardError:
            raise
        except Exception as problem:
            where = f"evaluators '{choice.name}' on {ref.name}"
            raise StageError(f"{where} failed: {type(problem).__name__}: {problem}") from problem
        artifact.write_shard(Metric, rows, {**drain_counters(context), "seconds": watch.seconds})
        if not any(folder.iterdir()):
            folder.rmdir()
        artifact.finish()

    _once(run, artifact, f"{ref.name} {choice.name}", None, fill)
    return [metric for shard in shards_of(artifact, Metric) for metric in shard]


def _context(
    run: Run, choice: Choice, place: tuple[EngineRoom, ModelRef], bar: Bar | None,
    previous: Measurement | None, answering: Callable[[], Sequence[AnsweredPrompt]], folder: Path,
) -> MeasuringContext:  # fmt: skip
    judge = run.evaluation_judge()

    def other(role: str) -> MeasuringContext | None:
        found = _place(run, role)
        if found is None:
            return None
        second = _context(run, choice, found, bar, None, lambda: _others_answers(run, *found), folder)
        second.counters = context.counters  # what the second model does is part of the evaluator's work
        return second

    context = MeasuringContext(
        run.files, *place, run.seed, ("evaluation", choice.name), bar,
        answering=answering,
        others=other,
        folder=folder,
        previous=(previous.name, previous.answers) if previous else None,
        policies=run.policies(),
        roles=lambda role: run.room.ref(run.role(role)),
        judging=lambda answered, mine: _judge(judge, answered, mine),
        judges_rubric=getattr(judge.config, "rubric", None),
    )  # fmt: skip
    return context


def _place(run: Run, role: str) -> tuple[EngineRoom, ModelRef] | None:
    """A second model and the engine it runs on; None where nobody plays the role yet."""
    if role == "judge":
        judging = run.role(getattr(run.choices["judge"].config, "model", "policy"))
        return run.judge_room, run.judge_room.ref(judging)
    return (run.room, run.role(role)) if run.has_role(role) else None


def _others_answers(run: Run, room: EngineRoom, ref: ModelRef) -> list[AnsweredPrompt]:
    """Another model's answers; no step of the loop, since who follows the loop does not see inside an evaluator."""
    held_out = _held_out(run)
    table = _answers(run, ref, held_out)
    with run.store.lock(table):
        if not table.is_finished():
            _answer(run, room, ref, table, None)
    return _answered(held_out, table)


def _judge(choice: Choice, answered: Sequence[AnsweredPrompt], context: MeasuringContext) -> list[Judgement]:
    """The judge at work on the evaluator's context: same model, its own seeds."""
    context.weight = sum(len(group.candidates) for group in answered)
    if context.bar:
        context.bar.total(context.weight)
    return list(choice.build().score(answered, context))


def _once(run: Run, artifact: Artifact, name: str, total: float | None, fill: Callable[[Bar], None]) -> None:
    step = Step(run, artifact, Needs.engine, name, total, lambda _, bar: fill(bar))
    step.do()
    run.measured(name, artifact, step.seconds)
    step.passed()
