"""The plugin manager: collects every registration and picks by name.

Built-ins and strangers come in through the same door, the entry-point group ``selfreward``. A package that fails to
import is remembered and reported when it may matter; it never keeps the others from working.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from selfreward.core.config import hookspecs
from selfreward.core.config.kinds import HOOKS, LIST_KINDS, check_class
from selfreward.core.contracts.plugin import Plugin
from selfreward.core.errors import UserError


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
            plugin = found[0].plugin
            return replace(plugin, check=partial(check_class, kind, found[0].package, plugin.name, plugin.config))
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
    known = [name for name in vars(hookspecs) if name.startswith("selfreward_")]
    unknown = next((w.strip("'\"") for w in str(problem).split() if w.strip("'\"").startswith("selfreward_")), "")
    return f"{str(problem).strip()}; {did_you_mean(unknown, known)}".rstrip("; ")


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-")
