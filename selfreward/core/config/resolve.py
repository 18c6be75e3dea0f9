"""Configuration: Hydra composes, this module decides whether the result is a run.

Composition is deliberately untyped. Every plain override reaches the composed config, and one final pass merges it onto
the plugins' dataclasses, so that unknown keys, wrong types and values out of range are all found, whichever way they
came in (a ``++`` override slips past Hydra's own check), and are reported together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfreward.core.config.kinds import KINDS, LIST_KINDS
from selfreward.core.config.registry import Registered, Registry, did_you_mean, registry
from selfreward.core.config.search_path import search_folders
from selfreward.core.contracts.options import cross_problems, option, range_problems
from selfreward.core.contracts.plugin import Plugin
from selfreward.core.contracts.records import row_types
from selfreward.core.contracts.rounds import STAGES, Choice, RoundConfig
from selfreward.core.errors import UserError

CALL_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


class Match(Enum):
    """How close an artifact must be to be reused."""

    content = "content"
    exact = "exact"


class Execution(Enum):
    """Where stages run."""

    auto = "auto"
    inline = "inline"
    isolated = "isolated"


@dataclass
class LaunchOptions:
    """How a model is trained where ``execution`` is isolated."""

    processes: int = option(1, ge=1)
    """Processes (GPUs) that train together, by ``accelerate launch``."""
    config: str | None = None
    """An ``accelerate`` config file (FSDP, DeepSpeed, several nodes), passed on as ``--config_file``."""


@dataclass
class StoreOptions:
    """Where finished stages are kept."""

    path: str = "${oc.env:SELFREWARD_STORE,.selfreward/store}"
    """Folder of the store, shared by all runs; the environment variable SELFREWARD_STORE changes the default."""
    match: Match = Match.content
    """content: reuse what the same inputs made, on whatever engine; exact: engine settings must be equal too."""


@dataclass
class EvaluationOptions:
    """How every model answers the held-out prompts."""

    n: int = option(300, ge=1)
    """Held-out prompts, at most."""
    temperature: float = option(0.7, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus: smallest set of tokens whose probability reaches this."""
    max_new_tokens: int = option(512, ge=1)
    """Longest answer, in tokens."""
    judge: Any = None
    """The judge that evaluators ask where the loop's own judge runs no model (``evaluation.judge=NAME``)."""


@dataclass
class RunOptions:
    """Options of the run itself, and the groups."""

    model: Any = None
    data: Any = None
    recipe: Any = None
    prompt_generator: Any = None
    prompt_filters: Any = field(default_factory=dict)
    sampler: Any = None
    candidate_filters: Any = field(default_factory=dict)
    judge: Any = None
    selector: Any = None
    pair_filters: Any = field(default_factory=dict)
    optimizer: Any = None
    engine: Any = None
    judge_engine: Any = None
    """The engine of the loop's judge, where it is not the run's own: ``judge_engine=server`` for a foreign judge."""
    evaluators: Any = field(default_factory=dict)
    monitors: Any = field(default_factory=dict)
    iterations: int = option(2, ge=0)
    """Loop rounds after M1; 2 gives M3."""
    seed: int = option(0, ge=0)
    """Seed of everything: data, sampling, training."""
    dry_run: bool = False
    """Check everything and print what would be done: rounds, models, rows, tokens, disk, what the store has."""
    run_dir: str | None = None
    """Folder of this run; None = <runs_dir>/<experiment>/<choices>-<signature>."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    execution: Execution = Execution.auto
    """inline: one process; isolated: models are run and trained in children, which give all memory back; auto: isolated
    where there is a GPU."""
    launch: LaunchOptions = field(default_factory=LaunchOptions)
    """How a model is trained where ``execution`` is isolated."""
    shard_size: int = option(128, ge=1)
    """Prompts per shard: what is lost at most when a run is killed, and the unit of batching."""
    store: StoreOptions = field(default_factory=StoreOptions)
    """Where finished stages are kept."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    """How every model answers the held-out prompts."""


@dataclass(frozen=True)
class RunConfig:
    """A run that has been checked: every group a Choice with its dataclass."""

    options: RunOptions
    choices: Mapping[str, Choice]
    """Groups that take one plugin."""
    lists: Mapping[str, tuple[Choice, ...]]
    """Groups that take a list."""
    brought: str = ""
    """What a partner brought along, in one line; empty if nothing."""
    composed: Mapping[str, Any] = field(default_factory=dict)
    """The composed config as it was, environment variables unresolved."""
    experiment: str = ""
    ablation: str = ""
    overrides: tuple[str, ...] = ()
    """What was said on the command line, the partner that came along included."""


def register_schemas(found: Registry | None = None) -> None:
    """Put every plugin's options into Hydra's ConfigStore, so that ``judge=mine`` works with no YAML at all."""
    from hydra.core.config_store import ConfigStore

    found = found or registry()
    store = ConfigStore.instance().store
    for kind in KINDS:
        for name, providers in found.kinds[kind].items():
            _register(store, found, kind, name, providers[0])
    OmegaConf.register_new_resolver(
        "selfreward_searchpath", lambda: [f"file://{folder}" for folder in found.conf_folders], replace=True
    )
    if "run" in _stored:
        return
    _stored["run"] = RunOptions
    store(group="schema", name="run", node=_untyped(RunOptions, found), provider="selfreward")
    for folder in search_folders():
        for path in sorted(folder.glob("tuned/*.yaml")):
            for group, name, node in _tuned(path):
                store(group=f"tuned/{group}", name=name, node=node, provider=str(folder))


def _register(store: Callable[..., None], found: Registry, kind: str, name: str, provider: Registered) -> None:
    config = provider.plugin.config
    if _stored.get(f"{kind}={name}") is config:
        return
    _stored[f"{kind}={name}"] = config
    node = {"name": name} | _untyped(config, found)
    store(group=f"schema/{kind}", name=name, node=node, provider=provider.package)
    # a YAML of that name says more than the bare options
    if not any((folder / kind / f"{name}.yaml").is_file() for folder in search_folders()):
        package = f"{kind}.{name}" if kind in LIST_KINDS else None
        store(group=kind, name=name, node=node, package=package, provider=provider.package)


_stored: dict[str, type] = {}
"""What is in Hydra's ConfigStore already: one process composes more than once."""


def _tuned(path: Path) -> Iterator[tuple[str, str, DictConfig]]:
    """(group, name, values) of each part of ``tuned/<model>.yaml``; config.yaml picks them by these names."""
    for group, plugins in OmegaConf.load(path).items():
        if group == "run":
            yield "run", path.stem, plugins
        else:
            yield from ((str(group), f"{path.stem}-{name}", values) for name, values in plugins.items())


def _untyped(config: type, found: Registry) -> dict[str, Any]:
    """The defaults of a dataclass of options; ``???`` for one that has none, which Hydra then asks for."""
    values = {}
    for each in dataclasses.fields(config):
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        values[each.name] = "???" if default is dataclasses.MISSING else _plain(default, found)
    return values


def _plain(value: Any, found: Registry) -> Any:
    if dataclasses.is_dataclass(value):
        values = {each.name: _plain(getattr(value, each.name), found) for each in dataclasses.fields(value)}
        return _whole_round(values, found) if isinstance(value, RoundConfig) else values
    if isinstance(value, Mapping):
        return {key: _plain(each, found) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, found) for each in value]
    return value.name if isinstance(value, Enum) else value


def _whole_round(values: dict[str, Any], found: Registry) -> dict[str, Any]:
    """A round with every option of its stages, so that each can be overridden by name."""

    def whole(kind: str, node: Any) -> Any:
        if isinstance(node, str):
            return {"name": node}
        providers = found.kinds[kind].get((node or {}).get("name", ""))
        return {"name": node["name"]} | _untyped(providers[0].plugin.config, found) | node if providers else node

    filters = {name: whole("pair_filters", node) for name, node in values["pair_filters"].items()}
    return values | {kind: whole(kind, values[kind]) for kind in STAGES} | {"pair_filters": filters}


def resolve(composed: DictConfig, brought: str = "", experiment: str = "", ablation: str = "") -> RunConfig:
    """Merge the composed config onto the dataclasses.

    Raises:
        UserError: every problem at once: unknown keys, types, ranges, plugins, stages that do not fit.
    """
    problems = list(forbidden_keys(composed))
    if problems:
        raise UserError(problems)
    unresolved = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    try:
        plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as problem:
        raise UserError(f"{getattr(problem, 'full_key', '')}: {_first_line(problem)}") from None
    assert isinstance(plain, dict)
    groups = {kind: plain.pop(kind, None) for kind in KINDS}
    options = _fill(RunOptions, plain, "", problems, known_more=KINDS)
    choices, lists = _choices(groups, problems)
    if options is not None:
        problems += range_problems(options, "run")
        options.evaluation.judge = _choice("judge", options.evaluation.judge, "evaluation.judge", problems)
        if options.judge_engine is not None:
            options.judge_engine = _choice("engine", options.judge_engine, "judge_engine", problems)
        if options.launch.config and not Path(options.launch.config).is_file():
            problems.append(f"launch.config={options.launch.config}: no such file; 'accelerate config' writes one")
    problems += _misfits(choices)
    if problems or options is None:
        raise UserError([p.replace("run.", "", 1) if p.startswith("run.") else p for p in problems])
    return RunConfig(options, choices, lists, brought, unresolved, experiment, ablation)  # type: ignore[arg-type]


def _choices(groups: dict[str, Any], problems: list[str]) -> tuple[dict[str, Choice], dict[str, tuple[Choice, ...]]]:
    choices: dict[str, Choice] = {}
    lists: dict[str, tuple[Choice, ...]] = {}
    for kind, node in groups.items():
        if kind in LIST_KINDS:
            members = (node or {}).items() if isinstance(node, dict | None) else ()
            if not isinstance(node, dict | None):
                problems.append(
                    f"{kind}={node}: takes a list of names, such as {kind}=[{', '.join(registry().names(kind)[:2])}]"
                )
            chosen = [name for name, each in members if isinstance(each, dict) and "name" in each]
            for name in (name for name, _ in members if name not in chosen):
                mend = f"{kind}=[{','.join([*chosen, name])}]"
                problems.append(f"{kind}.{name}: '{name}' is not chosen; choose it with {mend}")
            found = [_choice(kind, node[name], f"{kind}.{name}", problems) for name in chosen]
            lists[kind] = tuple(choice for choice in found if choice)
        elif choice := _choice(kind, node, kind, problems):
            choices[kind] = choice
    return choices, lists


def _choice(kind: str, node: Any, where: str, problems: list[str]) -> Choice | None:
    """A plugin and its validated config from ``{name: plugin, option: value}``."""
    if isinstance(node, str):
        node = {"name": node}
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        names = ", ".join(registry().names(kind))
        problems.append(f"{where}: no plugin is chosen; choose one with {where}=NAME ({names})")
        return None
    try:
        plugin = registry().get(kind, node["name"])
    except UserError as problem:
        problems += [f"{where}: {p}" for p in problem.problems]
        return None
    values = {key: value for key, value in node.items() if key != "name"}
    config = _fill(plugin.config, values, where, problems)
    if config is None:
        return None
    problems += range_problems(config, where)
    problems += cross_problems(config, where)
    for name, value in vars(config).items():
        if isinstance(value, RoundConfig):
            setattr(config, name, _nested_round(value, f"{where}.{name}", problems))
    members: dict[str, Choice] = {}
    for declared in dataclasses.fields(config):
        if of_kind := declared.metadata.get("members"):
            members |= _members(of_kind, getattr(config, declared.name), f"{where}.{declared.name}", problems)
    return Choice(kind, plugin, config, members)


def _members(kind: str, nodes: Any, where: str, problems: list[str]) -> dict[str, Choice]:
    """The plugins that another plugin's option names."""
    if not nodes or isinstance(nodes, list):
        nodes = {name: {} for name in nodes or ()}
    if not isinstance(nodes, dict):
        problems.append(f"{where}={nodes}: takes a list of names, or NAME: {{name: plugin, option: value}}")
        return {}
    named = {
        name: {"name": node} if isinstance(node, str) else {"name": name} | (node or {}) for name, node in nodes.items()
    }
    found = {str(name): _choice(kind, node, f"{where}.{name}", problems) for name, node in named.items()}
    return {name: choice for name, choice in found.items() if choice}


def _nested_round(config: RoundConfig, where: str, problems: list[str]) -> RoundConfig:
    chosen = {kind: _choice(kind, getattr(config, kind), f"{where}.{kind}", problems) for kind in STAGES}
    problems += [f"{where}: {p}" for p in _misfits({k: c for k, c in chosen.items() if c})]
    filters = [
        _choice("pair_filters", node, f"{where}.pair_filters.{name}", problems)
        for name, node in config.pair_filters.items()
    ]
    return dataclasses.replace(config, **chosen, pair_filters=tuple(each for each in filters if each))


def _fill(
    schema: type, values: dict[Any, Any], where: str, problems: list[str], known_more: Sequence[str] | Any = ()
) -> Any:
    """An instance of the dataclass with the values that fit put in; those that do not are told in ``problems``."""
    target = OmegaConf.structured(schema)
    _merge(target, values, where, problems, known_more)
    try:
        return OmegaConf.to_object(target)
    except (OmegaConfBaseException, ValueError, TypeError) as problem:
        problems.append(f"{where}: {_first_line(problem)}")
        return None


def _merge(target: DictConfig, values: dict[Any, Any], where: str, problems: list[str], known_more: Any = ()) -> None:
    known = [str(key) for key in target]
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            hint = did_you_mean(str(key), [*known, *known_more]) or f"there are: {', '.join(known) or 'none'}"
            problems.append(f"there is no option '{path}'; {hint}")
            continue
        child = OmegaConf.is_dict(target._get_node(key)) and target._get_node(key)._metadata.object_type  # type: ignore[union-attr]
        if isinstance(value, dict) and dataclasses.is_dataclass(child):
            _merge(target[key], value, path, problems)
            continue
        try:
            target[key] = value
        except OmegaConfBaseException as problem:
            problems.append(f"{path}={value}: {_first_line(problem)}")


def _first_line(problem: Exception) -> str:
    text = str(getattr(problem, "msg", None) or problem).strip().splitlines()[0]
    return text.replace("$KEY", "the key")


def _misfits(choices: Mapping[str, Choice]) -> Iterator[str]:
    """The selector must write what the optimizer reads."""
    if "selector" not in choices or "optimizer" not in choices:
        return
    selector, optimizer = choices["selector"].plugin, choices["optimizer"].plugin
    fit = misfit(selector, optimizer)
    if fit:
        yield fit


def misfit(selector: Plugin, optimizer: Plugin) -> str:
    """Why the two cannot be one round's stages 4 and 5; empty if they can."""
    written, read = selector.load().writes, row_types(optimizer.load().reads)
    if written in read:
        return ""
    writes, reads = written.KIND, " or ".join(each.KIND for each in read)
    partners = [
        f"optimizer={selector.partner}" if selector.partner else "",
        f"selector={optimizer.partner}" if optimizer.partner else "",
    ]
    mend = " or ".join(p for p in partners if p)
    return f"selector={selector.name} writes {writes}, optimizer={optimizer.name} reads {reads}: they do not fit" + (
        f"; use {mend}" if mend else ""
    )


def partner_override(named: set[str], chosen: Mapping[str, str]) -> str | None:
    """The override that brings the partner of the one stage that was named, or None.

    ``selector=positive_only`` alone brings ``optimizer=sft``; two named ones that do not fit are refused by
    :func:`resolve`. Decided after composition, so it works inside experiments and sweeps as well.
    """
    stages = {"selector", "optimizer"}
    if len(named & stages) != 1 or any(chosen[k] not in registry().kinds[k] for k in stages):
        return None
    mine = (named & stages).pop()
    other = (stages - {mine}).pop()
    plugins = {kind: registry().get(kind, chosen[kind]) for kind in stages}
    partner = plugins[mine].partner
    if partner and misfit(plugins["selector"], plugins["optimizer"]):
        return f"{other}={partner}"
    return None


def forbidden_keys(node: Any, where: str = "") -> Iterator[str]:
    """A config cannot run code: every key that Hydra or logging would call is named."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{where}.{key}" if where else str(key)
            if key in CALL_KEYS or key == "()":
                yield f"{path}: a config names a plugin, never code to call; remove it"
            yield from forbidden_keys(value, path)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from forbidden_keys(value, f"{where}[{index}]")
