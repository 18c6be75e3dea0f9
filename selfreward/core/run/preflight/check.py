"""All checks before the first token, all problems in one message, each with its mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from selfreward.core.config.resolve import RunConfig
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.errors import SelfRewardError, UserError
from selfreward.core.run.plan import Plan
from selfreward.core.run.preflight.disk import folder_problems, space_problems
from selfreward.core.run.preflight.judging import judging_problems
from selfreward.core.run.preflight.online import gradient_problems, online_problems
from selfreward.core.run.preflight.roles import evaluator_role_problems, role_problems
from selfreward.core.run.roles import base_model
from selfreward.core.run.run import Run
from selfreward.core.text.chat import Chat

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def preflight(run: Run, dry_plan: Callable[[RunConfig], Plan]) -> None:
    """Check folders, plugins, data, model, roles, rubric, every stage and the disk.

    Args:
        run: the run, before anything of it has begun.
        dry_plan: what the run would do, found by walking the loop dry.

    Raises:
        UserError: all problems at once, each with its mend.
    """
    missing = list(_library_problems(run))
    problems = [*folder_problems(run), *missing, *_data_problems(run)]
    base, chat, found = _model_problems(run)
    problems += found
    if base and not missing:
        problems += _engine_problems(run, base)
    if base and chat and not problems:
        rounds = list(run.rounds())
        problems += role_problems(rounds)
        problems += evaluator_role_problems(run.config.lists["evaluators"], rounds)
        for round in rounds:
            problems += _stage_problems(run, round, base, chat)
            problems += gradient_problems(round, run.options.launch.config)
            problems += online_problems(run, round)
        for choice in run.config.lists["evaluators"]:
            problems += _own_problems(run, choice)
        if not problems and not run.options.dry_run:
            problems += space_problems(run, base, dry_plan)
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


def _library_problems(run: Run) -> Iterator[str]:
    """Engine and evaluators are first needed when hours may have gone by; their libraries are looked for now."""
    chosen = [*run.config.choices.values(), *(choice for group in run.config.lists.values() for choice in group)]
    for choice in (each for named in chosen for each in named.with_members()):
        try:
            choice.plugin.load()
        except UserError as problem:
            yield from (f"{choice.kind}={choice.name}: {p}" for p in problem.problems)


def _data_problems(run: Run) -> list[str]:
    data = run.resources.data
    try:
        problems = list(data.problems())
        if not problems and list(run.rounds()) and not data.split("ift", run.options.seed):
            problems.append(f"data={run.config.choices['data'].name} has no instructions to start from")
        return problems
    except UserError as problem:
        return problem.problems
    except SelfRewardError as problem:
        return [str(problem)]


def _model_problems(run: Run) -> tuple[ModelRef | None, Chat | None, list[str]]:
    try:
        ref = base_model(run.config.choices["model"])
        folder = Path(ref.path)
        if not list(folder.glob("*.safetensors")):
            pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
            if pickles:
                why = f"the weights are pickles ({pickles[0]}), which can run code; convert them to safetensors: load "
                why += "them where you trust them and call save_pretrained"
                return None, None, [f"model.path={folder}: {why}"]
            return None, None, [f"model.path={folder}: no *.safetensors weights in this folder"]
        return ref, ref.chat(), []
    except UserError as problem:
        return None, None, problem.problems


def _engine_problems(run: Run, base: ModelRef) -> Iterator[str]:
    engines = run.resources.engines
    for where, room in engines.named().items():
        try:
            problems = room.problems(base)
        except UserError as problem:
            problems = problem.problems
        yield from (p if p.startswith(("engine=", base.path)) else f"{where}.{p}" for p in problems)
    measured = [choice.name for choice in run.config.lists["evaluators"]]
    if engines.main.foreign and measured:
        name = engines.main.choice.name
        yield (
            f"engine={name} runs a model of its own, so the models that are trained here cannot "
            f"be measured on it (evaluators: {', '.join(measured)}): set evaluators=[], or use it for the judge alone "
            f"(judge_engine={name}) and another engine for the rest"
        )


def _stage_problems(run: Run, round: Round, base: ModelRef, chat: Chat) -> list[str]:
    """What the stages themselves say; then, where they say nothing, whether the judge can be asked."""
    stages = [round.prompt_generator, round.sampler, round.judge, round.selector, round.optimizer]
    problems = [
        problem
        for choice in [*stages, *round.prompt_filters, *round.candidate_filters, *round.pair_filters]
        for problem in _own_problems(run, choice)
    ]
    for judge in round.judge.with_members():
        if not problems:
            problems += judging_problems(run, round, judge, base, chat)
    return problems


def _own_problems(run: Run, choice: Choice) -> list[str]:
    """What a plugin itself says, with its name before it where it does not name itself."""
    try:
        found = choice.build().problems(run.resources.files)
    except UserError as problem:
        found = problem.problems
    return [
        p if "=" in p.split(":")[0] or p.startswith(choice.name) else f"{choice.kind}={choice.name}: {p}" for p in found
    ]
