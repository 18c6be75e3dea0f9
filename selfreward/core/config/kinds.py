"""The kinds of plugins: for each its hook, its base class, and what a class of that kind must say of itself.

This is the one list of them; every other is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfreward.core.contracts.data import Data
from selfreward.core.contracts.engine import Engine
from selfreward.core.contracts.evaluation import Evaluator
from selfreward.core.contracts.model import Model, ModelConfig
from selfreward.core.contracts.monitors import Monitor
from selfreward.core.contracts.records import TRAINING_ROWS, row_types
from selfreward.core.contracts.rounds import Recipe
from selfreward.core.contracts.stages import (
    Filter,
    Judge,
    Optimizer,
    OptimizerConfig,
    PromptGenerator,
    Sampler,
    Selector,
    Stage,
    TextMetric,
)
from selfreward.core.errors import UserError


@dataclass(frozen=True)
class Kind:
    """One kind of plugin."""

    name: str
    """The config group."""
    hook: str
    """The hook that registers its plugins."""
    base: type
    """What its classes derive from."""
    options: type = object
    """What its config dataclasses derive from."""
    many: bool = False
    """Whether the group takes a list of names."""
    member: bool = False
    """No group of the config, but members of another plugin's option (``judge.metrics=[rouge_l]``)."""


TABLE = (
    Kind("model", "selfreward_models", Model, ModelConfig),
    Kind("data", "selfreward_data", Data),
    Kind("recipe", "selfreward_recipes", Recipe),
    Kind("prompt_generator", "selfreward_prompt_generators", PromptGenerator),
    Kind("prompt_filters", "selfreward_prompt_filters", Filter, many=True),
    Kind("sampler", "selfreward_samplers", Sampler),
    Kind("candidate_filters", "selfreward_candidate_filters", Filter, many=True),
    Kind("judge", "selfreward_judges", Judge),
    Kind("selector", "selfreward_selectors", Selector),
    Kind("pair_filters", "selfreward_pair_filters", Filter, many=True),
    Kind("optimizer", "selfreward_optimizers", Optimizer, OptimizerConfig),
    Kind("engine", "selfreward_engines", Engine),
    Kind("evaluators", "selfreward_evaluators", Evaluator, many=True),
    Kind("monitors", "selfreward_monitors", Monitor, many=True),
    Kind("metric", "selfreward_metrics", TextMetric, member=True),
)
HOOKS = {kind.name: kind.hook for kind in TABLE}
"""Every kind of plugin -> the hook that registers it."""
KINDS = {kind.name: kind.hook for kind in TABLE if not kind.member}
"""The kinds that are groups of the config."""
MEMBER_KINDS = {kind.name: kind.hook for kind in TABLE if kind.member}
LIST_KINDS = tuple(kind.name for kind in TABLE if kind.many)
_UNITS = ("row", "prompt_group", "table")
_MAKES = ("policy", "reward")


def check_class(kind: str, package: str, name: str, options: type, loaded: Any) -> None:
    """Whether a plugin's class does what its kind asks.

    Raises:
        UserError: it does not; names the plugin and its package, and says what to do.
    """
    table = {each.name: each for each in TABLE}
    if problems := list(_problems(table[kind], options, loaded)):
        raise UserError([f"{kind} '{name}' of {package}: {problem}" for problem in problems])


def _problems(kind: Kind, options: type, loaded: Any) -> Iterator[str]:
    base = kind.base
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        yield f"{getattr(loaded, '__name__', loaded)} is no {base.__name__}; derive it from selfreward.{base.__name__}"
        return
    if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
        yield f"{loaded.__name__} does not implement {', '.join(missing)}, which every {base.__name__} must"
    if not issubclass(options, kind.options):
        yield f"{options.__name__} must extend selfreward.{kind.options.__name__}, the options every {kind.name} has"
    if issubclass(loaded, Stage) and loaded.unit not in _UNITS:
        yield f"{loaded.__name__}.unit={loaded.unit!r} must be one of {', '.join(_UNITS)}"
    rows = ", ".join(each.__name__ for each in TRAINING_ROWS.values())
    if base is Selector and not _are_rows(getattr(loaded, "writes", None)):
        yield f"{loaded.__name__} must say which rows it writes: writes = one of {rows}"
    if base is Optimizer and not _are_rows(*row_types(getattr(loaded, "reads", None))):  # type: ignore[arg-type]
        yield f"{loaded.__name__} must say which rows it reads: reads = one of {rows}, or a tuple of them"
    if base is Optimizer and loaded.makes not in _MAKES:
        yield f"{loaded.__name__}.makes={loaded.makes!r} must be one of {', '.join(_MAKES)}"


def _are_rows(*declared: Any) -> bool:
    return bool(declared) and all(each in TRAINING_ROWS.values() for each in declared)
