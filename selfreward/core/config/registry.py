"""The plugin manager: collects every registration and picks by name.

Built-ins and strangers come in through the same door, the entry-point group ``selfreward``. A package that fails to
import is remembered and reported when it may matter; it never keeps the others from working.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from selfreward.core.errors import UserError

KINDS = {
    "model": "selfreward_models",
    "data": "selfreward_data",
    "recipe": "selfreward_recipes",
    "prompt_generator": "selfreward_prompt_generators",
    "prompt_filters": "selfreward_prompt_filters",
    "sampler": "selfreward_samplers",
    "candidate_filters": "selfreward_candidate_filters",
    "judge": "selfreward_judges",
    "selector": "selfreward_selectors",
    "pair_filters": "selfreward_pair_filters",
    "optimizer": "selfreward_optimizers",
    "engine": "selfreward_engines",
    "evaluators": "selfreward_evaluators",
    "monitors": "selfreward_monitors",
}
"""Config group -> the hook that registers its plugins. Groups in the plural take a list."""

MEMBER_KINDS = {"metric": "selfreward_metrics"}
"""Plugins that are no group of the config, but members of another plugin's option (``judge.metrics=[rouge_l]``)."""

HOOKS = KINDS | MEMBER_KINDS
"""Every kind of plugin -> the hook that registers it."""

LIST_KINDS = ("prompt_filters", "candidate_filters", "pair_filters", "evaluators", "monitors")


@dataclass(frozen=True)
class Plugin:
    """A registration: under which name which class is found, and how it is configured."""

    name: str
    target: str
    """``package.module:Class``; imported only when the plugin is used."""
    config: type
    """The dataclass of its options."""
    source: str = ""
    """Paper and section, or where the idea is from."""
    partner: str | None = None
    """For selectors the optimizer, for optimizers the selector, that comes along when only this one is named."""

    @classmethod
    def of(cls, name: str, made: type, source: str = "", partner: str | None = None) -> Plugin:
        """The registration of a class whose module is cheap to import and that declares ``config: Options``."""
        owner = next(base for base in made.__mro__ if "config" in vars(base).get("__annotations__", {}))
        config = vars(sys.modules[owner.__module__])[owner.__annotations__["config"]]
        return cls(name, f"{made.__module__}:{made.__qualname__}", config, source, partner)

    def load(self) -> Any:
        """Import the class.

        Raises:
            UserError: the module cannot be imported, or has no such class.
        """
        module, _, name = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as problem:
            absent = (getattr(problem, "name", None) or "").partition(".")[0]
            stranger = isinstance(problem, ModuleNotFoundError) and absent not in ("", module.partition(".")[0])
            mend = f"; install it: pip install {absent}" if stranger else ""
            raise UserError(f"'{self.name}' cannot be loaded from {self.target}: {problem}{mend}") from problem


@dataclass(frozen=True)
class Registered:
    """A registration and the package it came from."""

    plugin: Plugin
    package: str
    """Name and version of the distribution: ``selfreward 0.1.0``."""


@dataclass
class Registry:
    """Everything that is installed."""

    kinds: dict[str, dict[str, list[Registered]]] = field(default_factory=lambda: {kind: {} for kind in HOOKS})
    broken: dict[str, str] = field(default_factory=dict)
    """Package -> why it could not be loaded."""
    blocked: list[str] = field(default_factory=list)
    conf_folders: list[Path] = field(default_factory=list)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("selfreward"))

    def names(self, kind: str) -> list[str]:
        """The names of a kind, sorted."""
        return sorted(self.kinds[kind])

    def get(self, kind: str, name: str) -> Plugin:
        """The plugin of that kind and name.

        Raises:
            UserError: there is none (with what is close, and which packages are broken), or there are two.
        """
        found = self.kinds[kind].get(name, [])
        if len(found) == 1:
            return found[0].plugin
        if found:
            both = " and ".join(r.package for r in found)
            raise UserError(
                f"{kind} '{name}' is provided by {both}: block one, for example "
                f"SELFREWARD_BLOCK={found[-1].package.split()[0]}, or uninstall it"
            )
        hints = [did_you_mean(name, self.names(kind)) or f"there are: {', '.join(self.names(kind)) or 'none'}"]
        hints += [
            f"{package} could not be loaded and may be the one that has it: {why}"
            for package, why in self.broken.items()
        ]
        noun = kind.removesuffix("s") if kind in LIST_KINDS else kind
        raise UserError(f"there is no {noun} '{name}'; " + "; ".join(hints))

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a lifecycle hook of every plugin."""
        return getattr(self.manager.hook, hook)(**arguments)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


@cache
def registry() -> Registry:
    """Everything that is installed, collected once per process."""
    return collect(entry_points(group="selfreward"), os.environ)


def collect(points: Iterable[EntryPoint], environment: Mapping[str, str]) -> Registry:
    """Load each entry point in its own ``try``; a broken one is remembered, a blocked one skipped."""
    from selfreward.core.config import hookspecs

    found = Registry()
    found.manager.add_hookspecs(hookspecs)
    blocked = {_canonical(name) for name in environment.get("SELFREWARD_BLOCK", "").split(",") if name.strip()}
    for point in sorted(set(points), key=lambda p: (p.dist.name if p.dist else "", p.name)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        if point.dist and _canonical(point.dist.name) in blocked:
            found.blocked.append(package)
            continue
        try:
            _register(found, point, package)
        except (Exception, SystemExit) as problem:  # a stranger's module may raise anything while it is imported
            found.broken[package] = f"{type(problem).__name__}: {problem}"
    return found


def _register(found: Registry, point: EntryPoint, package: str) -> None:
    module = point.load()
    found.manager.register(module, name=f"{package}/{point.name}")
    try:
        found.manager.check_pending()  # a misspelt hook name otherwise registers silently
        added = [(kind, plugin) for kind, hook in HOOKS.items() for plugin in _provided(found, module, hook)]
        folders = [Path(folder) for folder in _results(found, module, "selfreward_conf")]
    except pluggy.PluginValidationError as problem:
        found.manager.unregister(module)
        raise UserError(_misspelt(problem)) from None
    except Exception:
        found.manager.unregister(module)
        raise
    for kind, plugin in added:
        found.kinds[kind].setdefault(plugin.name, []).append(Registered(plugin, package))
    found.conf_folders += folders


def _results(found: Registry, module: Any, hook: str) -> list[Any]:
    implementations = getattr(found.manager.hook, hook).get_hookimpls()
    return [implementation.function() for implementation in implementations if implementation.plugin is module]


def _provided(found: Registry, module: Any, hook: str) -> list[Plugin]:
    results = _results(found, module, hook)
    if None in results:
        raise TypeError(f"{hook}() returned nothing; it must return a list of selfreward.Plugin records")
    plugins = [plugin for result in results for plugin in result]
    for plugin in plugins:
        if not isinstance(plugin, Plugin):
            raise TypeError(f"{hook}() must return selfreward.Plugin records, got {type(plugin).__name__}")
        if not (isinstance(plugin.config, type) and dataclasses.is_dataclass(plugin.config)):
            raise TypeError(f"{hook}(): config of '{plugin.name}' must be a dataclass, got {plugin.config!r}")
        if ":" not in plugin.target:
            raise ValueError(
                f"{hook}(): target of '{plugin.name}' must read package.module:Class, got {plugin.target!r}"
            )
    return plugins


def _misspelt(problem: pluggy.PluginValidationError) -> str:
    from selfreward.core.config import hookspecs

    known = [name for name in vars(hookspecs) if name.startswith("selfreward_")]
    unknown = next((w.strip("'\"") for w in str(problem).split() if w.strip("'\"").startswith("selfreward_")), "")
    return f"{str(problem).strip()}; {did_you_mean(unknown, known)}".rstrip("; ")


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def search_folders() -> list[Path]:
    """Folders of the config search path: the project's ``conf/`` first, then those that plugins add."""
    from importlib.resources import files

    return [Path(str(files("selfreward.conf"))), *registry().conf_folders]
