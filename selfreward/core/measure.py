"""Measuring a model: its answers to the held-out prompts, and the evaluators. Kept in the store like any stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from selfreward.core.context import Context, MeasuringContext, drain_counters
from selfreward.core.engine import Request, Sampling
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.keyed import shards_of
from selfreward.core.model import ModelRef
from selfreward.core.progress import Bar, Stopwatch
from selfreward.core.records import AnsweredPrompt, Candidate, Judgement, Prompt
from selfreward.core.rounds import Choice
from selfreward.core.stages import Metric
from selfreward.core.store import Artifact, Key

if TYPE_CHECKING:
    from selfreward.core.run import Run


@dataclass(frozen=True)
class Measurement:
    """What is known of a model."""

    name: str
    answers: Sequence[AnsweredPrompt] = ()
    key: str = ""
    metrics: list[Metric] = field(default_factory=list)


def measure(run: Run, ref: ModelRef, previous: Measurement | None) -> Measurement:
    """Answer the held-out prompts with the model and run every evaluator."""
    if not run.config.lists["evaluators"]:
        return Measurement(ref.name)
    held_out = [row.prompt for row in run.data.split("evaluation", run.seed)][: run.options.evaluation.n]
    table = _answer(run, ref, held_out)
    if run.options.dry_run:
        names = ", ".join(choice.name for choice in run.config.lists["evaluators"])
        run.plan.evaluation(ref.name, len(held_out), run.options.evaluation.max_new_tokens, names, table.is_finished())
        return Measurement(ref.name)
    answers = [AnsweredPrompt(p, [c]) for p, c in zip(held_out, table.rows(Candidate), strict=True)]
    done = Measurement(ref.name, answers, table.key.hash)
    lengths = [len(group.candidates[0].text) for group in answers]
    if lengths:
        mean = sum(lengths) / len(lengths)
        done.metrics.append(Metric(ref.name, "loop", "response_length", mean, None, None, len(lengths)))
    for choice in run.config.lists["evaluators"]:
        done.metrics.extend(_evaluate(run, ref, choice, done, previous))
    return done


def _answer(run: Run, ref: ModelRef, held_out: list[Prompt]) -> Artifact:
    options = run.options.evaluation
    how = Sampling(options.temperature, options.top_p, 0, options.max_new_tokens)
    parts = {
        "model": [ref.name, ref.key],
        "prompts": [p.prompt_id for p in held_out],
        "sampling": repr(how),
        "seed": run.seed,
    }
    artifact = run.store.artifact(Key("answers", parts | run.execution_parts()))

    def fill(bar: Bar) -> None:
        context = Context(run.files, run.room, ref, run.seed, ("evaluation",), bar)
        size = run.options.shard_size
        for start in range(len(artifact), len(held_out), size):
            shard, watch = held_out[start : start + size], Stopwatch()
            context.weight = len(shard)
            requests = [Request(p.messages, how, context.seed(p.prompt_id)) for p in shard]
            rows = [
                Candidate.of(prompt, reply.text, 0, origin="evaluation", model=ref.name, token_ids=reply.token_ids,
                             finish_reason=reply.finish_reason, seed=reply.seed)
                for prompt, [reply] in zip(shard, context.generate(requests), strict=True)
            ]  # fmt: skip
            artifact.write_shard(Candidate, rows, {**drain_counters(context), "seconds": watch.seconds})
            bar.settle(len(shard))
        artifact.finish()

    if not run.options.dry_run:
        _once(run, artifact, f"{ref.name} answers", len(held_out), fill)
    return artifact


def _evaluate(run: Run, ref: ModelRef, choice: Choice, done: Measurement, previous: Measurement | None) -> list[Metric]:
    evaluator = choice.build()
    judge = run.evaluation_judge()
    parts = {
        "name": ref.name,
        "model": ref.key,
        "answers": done.key,
        "previous": [previous.name, previous.key] if previous else None,
        "evaluator": run.identity(choice, evaluator),
        "judge": run.identity(judge),
        "data": run.data_key,
        "seed": run.seed,
    }
    artifact = run.store.artifact(Key("metrics", parts | run.execution_parts()))

    def fill(bar: Bar) -> None:
        context = MeasuringContext(
            run.files, run.room, ref, run.seed, ("evaluation", choice.name), bar,
            answers=done.answers,
            previous=(previous.name, previous.answers) if previous else None,
            judging=lambda answered, mine: _judge(judge, answered, mine),
            judges_rubric=getattr(judge.config, "rubric", None),
        )  # fmt: skip
        watch = Stopwatch()
        try:
            rows = list(evaluator.evaluate(context))
        except SelfRewardError:
            raise
        except Exception as problem:
            where = f"evaluators '{choice.name}' on {ref.name}"
            raise StageError(f"{where} failed: {type(problem).__name__}: {problem}") from problem
        artifact.write_shard(Metric, rows, {**drain_counters(context), "seconds": watch.seconds})
        artifact.finish()

    _once(run, artifact, f"{ref.name} {choice.name}", None, fill)
    return [metric for shard in shards_of(artifact, Metric) for metric in shard]


def _judge(choice: Choice, answered: Sequence[AnsweredPrompt], context: MeasuringContext) -> list[Judgement]:
    """The judge at work on the evaluator's context: same model, its own seeds."""
    context.weight = sum(len(group.candidates) for group in answered)
    if context.bar:
        context.bar.total(context.weight)
    return list(choice.build().score(answered, context))


def _once(run: Run, artifact: Artifact, name: str, total: float | None, fill: object) -> None:
    watch = Stopwatch()
    with run.store.lock(artifact):
        artifact.reused = artifact.is_finished()
        if not artifact.reused:
            with run.screen.bar(name, total) as bar:
                fill(bar)  # type: ignore[operator]
    run.measured(name, artifact, watch.seconds)
