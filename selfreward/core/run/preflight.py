"""Before the first token: everything that can be found out without running a model, all problems in one message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selfreward.core.contracts.model import Model, ModelRef
from selfreward.core.contracts.records import digest
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.errors import SelfRewardError, UserError
from selfreward.core.run.disk import folder_problems, space_problems
from selfreward.core.store.digests import file_digest

if TYPE_CHECKING:
    from selfreward.core.run.run import Run
    from selfreward.core.text.chat import Chat
    from selfreward.core.text.rubric import Rubric

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def preflight(run: Run) -> None:
    """Check folders, plugins, data, model, roles, rubric, every stage and the disk.

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
        problems += _role_problems(rounds)
        problems += _second_models(run, rounds)
        for round in rounds:
            problems += _stage_problems(run, round, base, chat)
            problems += _gradient_problems(round, run.options.launch.config)
            problems += _online_problems(run, round)
            problems += _reward_problems(run, round)
        for choice in run.config.lists["evaluators"]:
            problems += _own_problems(run, choice)
        if not problems and not run.options.dry_run:
            problems += space_problems(run, base)
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


def base_model(choice: Choice, path: str | None = None) -> ModelRef:
    """The base checkpoint (or another folder, with the same settings), and a key over its content.

    Raises:
        UserError: no such folder, and no hub that has it.
    """
    model: Model = choice.build()
    where = path or model.path()
    if not Path(where).is_dir():
        where = _fetch(where)
    config = model.config
    files = sorted(
        p
        for p in Path(where).iterdir()
        if p.is_file() and p.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt")
    )
    template = config.chat_template
    if template and Path(template).is_file():
        template = Path(template).read_text(encoding="utf-8")
    key = digest([[p.name, file_digest(p)] for p in files], config.dtype.value, template)
    return ModelRef("base", where, key, config)


def _fetch(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"])
    except HFValidationError:
        raise UserError(f"model.path={name}: no such folder") from None
    except Exception as problem:  # the hub's client raises many kinds; all mean that the model cannot be had
        first = str(problem).strip().splitlines()[0]
        raise UserError(f"model.path={name}: no such folder, and the hub did not give it ({first})") from None


def _library_problems(run: Run) -> Iterator[str]:
    """Engine and evaluators are first needed when hours may have gone by; their libraries are looked for now."""
    chosen = [*run.config.choices.values(), *(choice for group in run.config.lists.values() for choice in group)]
    for choice in (each for named in chosen for each in _with_members(named)):
        try:
            choice.plugin.load()
        except UserError as problem:
            yield from (f"{choice.kind}={choice.name}: {p}" for p in problem.problems)


def _data_problems(run: Run) -> list[str]:
    try:
        problems = list(run.data.problems())
        if not problems and list(run.rounds()) and not run.data.split("ift", run.seed):
            problems.append(f"data={run.choices['data'].name} has no instructions to start from")
        return problems
    except SelfRewardError as problem:
        return getattr(problem, "problems", [str(problem)])


def _model_problems(run: Run) -> tuple[ModelRef | None, Chat | None, list[str]]:
    try:
        ref = base_model(run.choices["model"])
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
    rooms = {"engine": run.room} | ({"judge_engine": run.judge_room} if run.judge_room is not run.room else {})
    for where, room in rooms.items():
        try:
            problems = room.problems(base)
        except UserError as problem:
            problems = problem.problems
        yield from (p if p.startswith(("engine=", base.path)) else f"{where}.{p}" for p in problems)
    measured = [choice.name for choice in run.config.lists["evaluators"]]
    if run.room.foreign and measured:
        yield (
            f"engine={run.choices['engine'].name} runs a model of its own, so the models that are trained here cannot "
            f"be measured on it (evaluators: {', '.join(measured)}): set evaluators=[], or use it for the judge alone "
            f"(judge_engine={run.choices['engine'].name}) and another engine for the rest"
        )


def _role_problems(rounds: list[Round]) -> list[str]:
    """Every role that a stage names exists by the time its round begins, and is of the kind that the stage runs."""
    policies, rewards = ["base", "M0", "policy"], list[str]()
    problems = []
    for round in rounds:
        for choice in (round.prompt_generator, round.sampler, round.judge, round.optimizer):
            scores = getattr(choice.plugin.load(), "uses_rewards", False)
            for option in ("model", "init_from", "reference", "critic"):
                role = getattr(choice.config, option, None)
                known = rewards if scores and option == "model" else policies
                if option == "critic" or (option == "init_from" and round.makes_reward):
                    known = [*policies, *rewards]
                more = {"reference": ["start"], "critic": ["head", "start"]}.get(option, [])
                allowed = [*known, *more]
                if isinstance(role, str) and role not in allowed and not Path(role).is_dir():
                    what = "reward model" if known is rewards else "model"
                    problems.append(
                        f"{choice.kind}.{option}={role}: no {what} plays this role in {round.folder}; "
                        f"there are: {', '.join(allowed) or 'none yet'}, or the path of a model folder"
                    )
        kind = rewards if round.makes_reward else policies
        kind += [name for name in (round.makes, *(["reward"] if round.makes_reward else [])) if name not in kind]
    return problems


def _layout(launch_config: str) -> str:
    """``distributed_type`` of an ``accelerate`` config file."""
    import yaml

    config = yaml.safe_load(Path(launch_config).read_text(encoding="utf-8"))
    return str((config or {}).get("distributed_type") or "NO")


def _gradient_problems(round: Round, launch: str | None) -> Iterator[str]:
    """Policy gradients need the probability with which an answer was drawn: nothing may have been cut from it."""
    optimizer, how = round.optimizer.plugin.load(), round.sampler.config
    if not getattr(optimizer, "unfiltered", False):
        return
    if launch and (layout := _layout(launch)) not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        yield (
            f"launch.config={launch}: optimizer={round.optimizer.name} trains whole models or adapters in each "
            f"process, not under {layout}: set launch.processes= without launch.config="
        )
    top_p, top_k = getattr(how, "top_p", 1.0), getattr(how, "top_k", 0)
    if top_p != 1 or top_k:
        yield (
            f"optimizer={round.optimizer.name} takes the probability of each answer, and with sampler.top_p={top_p:g} "
            f"sampler.top_k={top_k} answers are drawn from a part of the distribution only: set sampler.top_p=1 "
            "sampler.top_k=0"
        )
    writer = getattr(how, "model", "policy")
    start = "policy" if round.online else round.optimizer.config.init_from
    if writer != start:
        yield (
            f"sampler.model={writer}: optimizer={round.optimizer.name} takes the probability of each answer under the "
            f"model that wrote it, which is "
            + ("the one in training: set sampler.model=policy" if round.online else f"optimizer.init_from={start}")
        )
    if getattr(how, "temperature", 1.0) == 0:
        yield f"optimizer={round.optimizer.name} learns from answers that differ: set sampler.temperature above 0"


def _online_problems(run: Run, round: Round) -> Iterator[str]:
    """What an online optimizer cannot do: sample without weights, drop rows, learn from too few answers."""
    if not round.online:
        return
    name, optimizer = round.optimizer.name, round.optimizer.plugin.load()
    if not run.choices["engine"].plugin.load().takes_weights:
        yield (
            f"optimizer={name} samples while it trains, and engine={run.choices['engine'].name} cannot run weights "
            "that are in no file: use engine=transformers or engine=vllm"
        )
    elif run.options.launch.processes > 1 and not run.choices["engine"].plugin.load().in_trainers:
        yield (
            f"optimizer={name} has an engine in each of launch.processes={run.options.launch.processes}, and engine="
            f"{run.choices['engine'].name} would join them as processes of its own: use engine=transformers"
        )
    if not getattr(round.sampler.plugin.load(), "uses_model", False):
        yield f"optimizer={name} trains on its own answers, and sampler={round.sampler.name} has none: sampler=nucleus"
    for kind in ("candidate_filters", "pair_filters"):
        if chosen := [choice.name for choice in getattr(round, kind)]:
            yield f"{kind}=[{','.join(chosen)}] would do nothing: optimizer={name} makes its own rows; set {kind}=[]"
    n, least = getattr(round.sampler.config, "n", 1), getattr(optimizer, "least_answers", 1)
    if n < least:
        yield f"optimizer={name} compares the answers to a prompt: sampler.n={n} must be at least {least}"


def _reward_problems(run: Run, round: Round) -> Iterator[str]:
    """A reward model is run by an engine that can."""
    for judge in _with_members(round.judge):
        if not getattr(judge.plugin.load(), "uses_rewards", False):
            continue
        name = "judge_engine" if run.judge_room is not run.room and round.name == "loop" else "engine"
        engine = run.options.judge_engine if name == "judge_engine" else run.choices["engine"]
        if not engine.plugin.load().runs_rewards:
            yield f"judge={judge.name}: {name}={engine.name} runs no reward models; set judge_engine=transformers"


def _second_models(run: Run, rounds: list[Round]) -> Iterator[str]:
    """Evaluators compare with, and ask, models that there are or will be."""
    known = ["base", "M0", "policy", *(round.makes for round in rounds)]
    for choice in run.config.lists["evaluators"]:
        for option, more in (("against", ["previous", "judge"]), ("judge_model", ["judge"]), ("anchor", [])):
            role = getattr(choice.config, option, None)
            if isinstance(role, str) and role not in [*known, *more] and not Path(role).is_dir():
                there = ", ".join(dict.fromkeys([*more, *known]))
                yield (
                    f"evaluators.{choice.name}.{option}={role}: no model plays this role; there are: {there}, or the "
                    "path of a model folder"
                )


def _stage_problems(run: Run, round: Round, base: ModelRef, chat: Chat) -> list[str]:
    problems: list[str] = []
    stages = [round.prompt_generator, round.sampler, round.judge, round.selector, round.optimizer]
    for choice in [*stages, *round.prompt_filters, *round.candidate_filters, *round.pair_filters]:
        problems += _own_problems(run, choice)
    for judge in _with_members(round.judge):
        kind = judge.plugin.load()
        if not problems and getattr(kind, "needs_references", False):
            problems += _reference_problems(round, judge, "compares with human answers", "other judge.metrics")
        if not problems and kind.uses_model and hasattr(judge.config, "rubric"):
            rubric = run.files.rubric(judge.config.rubric)
            if rubric.needs_reference:
                why = f"rubric {rubric.name} wants a reference answer"
                problems += _reference_problems(round, judge, why, "another judge.rubric")
            problems += _context_problems(run, round, judge, rubric, base, chat)
    return problems


def _with_members(choice: Choice) -> Iterator[Choice]:
    """A plugin and those that its options name, and theirs."""
    yield choice
    for member in choice.members.values():
        yield from _with_members(member)


def _own_problems(run: Run, choice: Choice) -> list[str]:
    """What a plugin itself says, with its name before it where it does not name itself."""
    try:
        found = choice.build().problems(run.files)
    except UserError as problem:
        found = problem.problems
    return [
        p if "=" in p.split(":")[0] or p.startswith(choice.name) else f"{choice.kind}={choice.name}: {p}" for p in found
    ]


def _reference_problems(round: Round, judge: Choice, why: str, other: str) -> list[str]:
    """Nobody has answered a prompt that a model has just written."""
    writer = round.prompt_generator
    if not getattr(writer.plugin.load(), "uses_model", False):
        return []
    return [
        f"{judge.kind}={judge.name}: {why}, and the prompts of prompt_generator={writer.name} have none: use "
        f"prompt_generator=dataset, or {other}"
    ]


def _context_problems(run: Run, round: Round, judge: Choice, rubric: Rubric, base: ModelRef, chat: Chat) -> list[str]:
    """The longest judge prompt must leave room for the verdict: rubric, answers of full length, and the reply."""
    limit = context_length(Path(base.path))
    room = run.judge_room if round.name == "loop" else run.room
    if room.foreign or limit is None:
        return []
    turns = [{"role": role, "content": ""} for _ in range(rubric.turns or 1) for role in ("user", "assistant")]
    prompt = rubric.messages(turns, turns if rubric.compares else (), [""] * (rubric.turns or 1))
    fixed = len(chat.encode(prompt, rubric.reply_prefix))
    shown = 2 if rubric.compares else 1
    answer, reply = getattr(round.sampler.config, "max_new_tokens", 0), getattr(judge.config, "max_new_tokens", 0)
    if (needed := fixed + reply + shown * answer) <= limit:
        return []
    return [
        f"the context of {limit} tokens is too short for judging: rubric '{rubric.name}' {fixed} + answer "
        f"{'2 x ' * (shown - 1)}sampler.max_new_tokens={answer} + verdict judge.max_new_tokens={reply} = {needed} "
        "tokens before the instruction; lower one of them, or use a shorter rubric (judge.rubric=)"
    ]


def context_length(folder: Path) -> int | None:
    """``max_position_embeddings`` of a checkpoint; None where it does not say."""
    config = folder / "config.json"
    value = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings") if config.is_file() else None
    return int(value) if value else None
