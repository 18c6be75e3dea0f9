"""Between the command line and a checked config: overrides, composition, partners, and errors that people can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfreward.core.config.kinds import KINDS, LIST_KINDS
from selfreward.core.config.registry import did_you_mean, registry
from selfreward.core.config.resolve import (
    CALL_KEYS,
    RunConfig,
    forbidden_keys,
    partner_override,
    register_schemas,
    resolve,
)
from selfreward.core.config.search_path import search_folders
from selfreward.core.errors import UserError

CONFIG_MODULE = "selfreward.conf"
PLACED = {"judge_engine": "engine"}
"""Groups that are chosen a second time elsewhere: ``judge_engine=server`` is ``engine@judge_engine=server``."""
NAMED_SETS = ("experiment", "ablation")
"""Groups whose members are sets of choices, not plugins."""
LAUNCHERS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""Where launchers and sweepers come from that may be named: Hydra's own, which stay in this process, and plugins."""
Composer = Callable[[Sequence[str]], DictConfig]
"""Composes the overrides and a few more, with Hydra's own part."""
_LOGGING = ("StreamHandler", "FileHandler", "NullHandler", "Formatter", "handlers.RotatingFileHandler")


def rewrite(overrides: Sequence[str]) -> list[str]:
    """``option=value`` becomes ``++option=value``, so that a misspelt option composes and is reported with all others.

    Raises:
        UserError: something that is not an override, or one that would call code.
    """
    register_schemas()
    problems: list[str] = []
    rewritten = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as problem:
            problems.append(f"{text}: not an override of the form option=value ({str(problem).splitlines()[0]})")
            continue
        problems += _code_problems(override)
        if override.key_or_group in PLACED and override.type is OverrideType.CHANGE:
            rewritten.append(f"{PLACED[override.key_or_group]}@{text}")
            continue
        plain = override.type is OverrideType.CHANGE and not _is_group(override.key_or_group)
        hydras_own = override.key_or_group.split(".")[0] == "hydra"
        rewritten.append(f"++{text}" if plain and not hydras_own else text)
    if problems:
        raise UserError(problems)
    return rewritten


def _code_problems(override: Override) -> Iterator[str]:
    key = override.key_or_group
    if any(call in str(override.input_line) for call in CALL_KEYS):
        yield f"{override.input_line}: a config names a plugin, never code to call"
    elif key.replace("/", ".").startswith("hydra.callbacks"):
        yield f"{override.input_line}: Hydra's callbacks run code named by a config; use a lifecycle plugin instead"


def _is_group(key: str) -> bool:
    return key in KINDS or key in NAMED_SETS or "/" in key


@dataclass(frozen=True)
class Composed:
    """What Hydra made of the overrides, the partner among them."""

    config: DictConfig
    """With Hydra's own part under ``hydra``."""
    loader: ConfigLoader | None = None
    partner: tuple[str, ...] = ()
    """The override that was added, if one was."""
    brought: str = ""
    """The line that says so."""

    def resolved(self) -> RunConfig:
        """The checked config.

        Raises:
            UserError: every problem at once.
        """
        choices = self.config.hydra.runtime.choices
        sets = {group: str(choices.get(group) or "") for group in NAMED_SETS}
        task = OmegaConf.masked_copy(self.config, [str(key) for key in self.config if key != "hydra"])
        return replace(resolve(task, self.brought, **sets), overrides=tuple(self.config.hydra.overrides.task))


def check(overrides: Sequence[str], multirun: bool, config_dir: str | None = None) -> tuple[Composed, RunConfig]:
    """Everything that can be known before Hydra acts on the config; of a sweep, what its jobs have in common.

    Raises:
        UserError: all problems at once.
    """
    parsed, unknown = _parse(overrides, config_dir)
    problems = list(unknown.values())
    if multirun and any(o.key_or_group == "run_dir" for o in parsed):
        problems.append("run_dir names one folder, and a sweep has many: use runs_dir with -m")
    swept = {o.input_line for o in parsed if multirun and o.is_sweep_override()}
    rest = [str(o.input_line) for o in parsed if o.input_line not in unknown and o.input_line not in swept]
    try:
        composed = _compose(
            rest, config_dir, [o for o in parsed if o.input_line in swept and _is_group(o.key_or_group)]
        )
        checked = composed.resolved()
    except UserError as problem:
        problems += problem.problems
    if problems:
        raise UserError(problems)
    return composed, checked


def look(overrides: Sequence[str], config_dir: str | None = None) -> Composed:
    """The config for who only looks at it; it may be wrong in other ways.

    Raises:
        UserError: something unknown is named.
    """
    _, unknown = _parse(overrides, config_dir)
    if unknown:
        raise UserError(unknown.values())
    return _compose(overrides, config_dir, harmless=False)


def _parse(overrides: Sequence[str], config_dir: str | None) -> tuple[list[Override], dict[str | None, str]]:
    """The overrides, and what is wrong with those that name something unknown."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return parsed, {o.input_line: problem for o in parsed for problem in _unknown_choices(o, config_dir)}


def _unknown_choices(override: Override, config_dir: str | None) -> Iterator[str]:
    kind = override.key_or_group
    if kind not in KINDS and kind not in NAMED_SETS:
        return
    if kind in LIST_KINDS and override.value() is None:
        yield f"{override.input_line}: takes a list of names, {kind}=[A,B]; none at all is {kind}=[]"
        return
    if kind in KINDS and kind not in LIST_KINDS and isinstance(override.value(), list | None):
        names = ", ".join(registry().names(kind))
        yield f"{override.input_line}: takes one name, {kind}=NAME ({names}); a sweep is -m {kind}=A,B"
        return
    for name in _names(override):
        folders = [*search_folders(), *([Path(config_dir)] if config_dir else [])]
        if any((folder / kind / f"{name}.yaml").is_file() for folder in folders):
            continue
        if name == "null":
            continue
        if kind in NAMED_SETS:
            known = sorted({p.stem for folder in folders for p in folder.glob(f"{kind}/*.yaml")})
            hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
            yield f"{kind}={name}: no such {kind}; {hint}"
            continue
        try:
            registry().get(kind, name)
        except UserError as problem:
            yield f"{kind}={name}: {problem}"


def _names(override: Override) -> list[str]:
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    flat = [v for value in values for v in (value if isinstance(value, list) else _listed(value))]
    return ["null" if v is None else str(v) for v in flat]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str) and value.startswith("["):
        return yaml.safe_load(value)
    return [value]


def compose_run(overrides: Sequence[str]) -> RunConfig:
    """Compose and check one run.

    Raises:
        UserError: every problem at once.
    """
    return _compose(overrides).resolved()


def _compose(
    overrides: Sequence[str], config_dir: str | None = None, swept: Sequence[Override] = (), harmless: bool = True
) -> Composed:
    """Compose once, and again where a partner comes along; what each swept group would bring is looked at, too."""
    from hydra.core.global_hydra import GlobalHydra

    with _composer(overrides, config_dir) as compose:
        for more in (f"{o.get_key_element()}={name}" for o in swept for name in o.sweep_string_iterator()):
            if problems := list(_hydra_problems(compose([more]).hydra)):
                raise UserError([f"{more}: {p}" for p in problems])
        composed = settle(compose([]), overrides, compose, harmless)
        return replace(composed, loader=GlobalHydra.instance().config_loader())


def settle(composed: DictConfig, overrides: Sequence[str], compose: Composer, harmless: bool = True) -> Composed:
    """Look for code that would be called, and bring the partner.

    Raises:
        UserError: Hydra's part of the config names code.
    """
    if harmless and (problems := list(_hydra_problems(composed.hydra))):
        raise UserError(problems)
    partner, brought = _partner(composed.hydra, overrides)
    if not partner:
        return Composed(composed)
    return Composed(compose([partner]), partner=(partner,), brought=brought)


@contextmanager
def _composer(overrides: Sequence[str], config_dir: str | None) -> Iterator[Composer]:
    """A function that composes the overrides and a few more, with Hydra's own part."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    register_schemas()
    GlobalHydra.instance().clear()
    folders = [Path(config_dir).resolve(), *registry().conf_folders] if config_dir else []  # as hydra.main has them
    path = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
        try:
            yield lambda more: compose("config", overrides=[*overrides, *more, *path], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as problem:
            raise UserError(explain(problem)) from problem


def _partner(hydra_config: DictConfig, overrides: Sequence[str]) -> tuple[str | None, str]:
    """The override that brings the partner of the one stage that was named, and the line that says so."""
    stages = ("selector", "optimizer")
    chosen = {k: str(hydra_config.runtime.choices.get(k) or "") for k in stages}
    typed = {override.lstrip("+").split("=")[0] for override in overrides}
    named = {k for k in stages if k in typed or chosen[k] != default_choices()[k]}
    partner = partner_override(named, chosen)
    return partner, f"{named.pop()} was named alone and brings its partner: {partner}" if partner else ""


@cache
def default_choices() -> Mapping[str, str]:
    """The primary config's own choices: what counts as not having been named."""
    text = (search_folders()[0] / "config.yaml").read_text(encoding="utf-8")
    entries = [entry for entry in yaml.safe_load(text)["defaults"] if isinstance(entry, dict)]
    return {k: v for entry in entries for k, v in entry.items() if k in KINDS and k not in LIST_KINDS}


def _hydra_problems(hydra_config: DictConfig) -> Iterator[str]:
    """Nothing but Hydra's own launchers and sweepers may be instantiated."""
    plain = OmegaConf.to_container(hydra_config, resolve=False)
    assert isinstance(plain, dict)
    for part in ("launcher", "sweeper"):
        target = (plain.get(part) or {}).pop("_target_", None)
        if target and not str(target).startswith(LAUNCHERS):
            yield f"hydra.{part}._target_={target}: only installed Hydra launchers and sweepers may be named"
    if plain.get("callbacks"):
        yield "hydra.callbacks: callbacks run code named by a config; use a lifecycle plugin instead"
    if (plain.get("job") or {}).get("env_set"):
        yield "hydra.job.env_set: it would decide what children run; set environment variables on the command line"
    relevant = {
        k: v for k, v in plain.items() if k in ("launcher", "sweeper", "job_logging", "hydra_logging", "run", "sweep")
    }
    yield from (f"hydra.{p}" for p in forbidden_keys(relevant))
    for part in ("job_logging", "hydra_logging"):
        for path, value in _classes(plain.get(part), f"hydra.{part}"):
            if value not in {f"logging.{name}" for name in _LOGGING}:
                yield f"{path}={value}: only {', '.join(_LOGGING)} of Python's logging may be named"


def _classes(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every ``class`` that ``logging.config`` would import."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        yield from [(f"{where}.class", value)] if key == "class" else _classes(value, f"{where}.{key}")


def explain(problem: Exception) -> str:
    """Hydra's and OmegaConf's messages, without what misleads: "use +" is never the mend here."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    useful = [
        line
        for line in lines
        if "append to your" not in line and "prepend your" not in line and "object_type=" not in line
    ]
    useful = [
        line.strip() for line in useful if "full_key:" not in line and not line.startswith(("Set the env", "See https"))
    ]
    return " ".join(useful[:6]) or type(problem).__name__
