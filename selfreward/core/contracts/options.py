"""Options of a plugin: dataclass fields with a range that the core checks.

``n: int = option(4, ge=1)`` is an ordinary dataclass field; the docstring below it is its documentation.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Any

_RULES = {
    "ge": ("at least", lambda value, bound: value >= bound),
    "gt": ("above", lambda value, bound: value > bound),
    "le": ("at most", lambda value, bound: value <= bound),
    "lt": ("below", lambda value, bound: value < bound),
}


def option(default: Any, *, execution: bool = False, **bounds: float) -> Any:
    """A dataclass field with bounds: ``ge``, ``gt``, ``le``, ``lt``. None passes where the type allows None.

    ``execution=True`` says that the option changes how work is done and not a byte of what comes out, so that stages
    done under one value are reused under another (unless ``store.match=exact``).
    """
    unknown = set(bounds) - set(_RULES)
    if unknown:
        raise TypeError(f"option() takes {', '.join(_RULES)}; got {', '.join(sorted(unknown))}")
    return dataclasses.field(default=default, metadata=bounds | {"execution": execution})


class RoleKind(Enum):
    """Which models may play the role that an option names."""

    policy = "policy"
    reward = "reward"
    any = "any"


@dataclasses.dataclass(frozen=True)
class RoleRule:
    """What an option that names a model may say besides the path of a model folder."""

    kind: RoleKind
    words: tuple[str, ...]
    """Words of the plugin's own that stand for no role of the run (``start``, ``head``, ``previous``)."""


def role(default: str | None, *words: str, kind: RoleKind = RoleKind.policy) -> Any:
    """A dataclass field that names a model by its role: ``model: str = role("policy")``.

    That such a model is there when its round begins is checked before any work; of a model that an evaluator names, the
    content is part of the figures' key.

    Args:
        default: the role; None where the option may be left out.
        words: further words that the option may say, which the plugin explains (``start``, ``previous``).
        kind: whether a policy, a reward model or either may play it.
    """
    return dataclasses.field(default=default, metadata={"role": RoleRule(kind, words)})


def roles(config: Any) -> dict[str, tuple[str, RoleRule]]:
    """The options of a config that name a model, with what they say; those left out (None) are not among them."""
    rules = {field.name: field.metadata["role"] for field in dataclasses.fields(config) if "role" in field.metadata}
    return {name: (said, rule) for name, rule in rules.items() if (said := getattr(config, name)) is not None}


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass in canonical form."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)  # type: ignore[return-value]


def without_execution(config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config dataclass, in canonical form, less those that change nothing of the result."""
    kept = [field.name for field in dataclasses.fields(config) if not field.metadata.get("execution")]
    return {
        name: without_execution(value, settings[name]) if dataclasses.is_dataclass(value) else settings[name]
        for name in kept
        if name in settings
        for value in [getattr(config, name)]
    }


def range_problems(config: Any, where: str) -> Iterator[str]:
    """One sentence for every option of a config dataclass that lies outside its bounds, nested ones included."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from range_problems(value, f"{where}.{field.name}")
        elif (bounds := _bounds(field)) and isinstance(value, int | float):
            broken = [f"{_RULES[r][0]} {b:g}" for r, b in bounds.items() if not _RULES[r][1](value, b)]
            if broken or abs(value) == math.inf:
                yield f"{where}.{field.name}={value} is out of range: it must be {' and '.join(broken) or 'finite'}"


def _bounds(field: dataclasses.Field[Any]) -> dict[str, float]:
    return {rule: bound for rule, bound in field.metadata.items() if rule in _RULES}  # others may have metadata, too


def cross_problems(config: Any, where: str) -> Iterator[str]:
    """What the config's own ``problems()`` says, where it has one: rules between options."""
    for problem in getattr(config, "problems", tuple)():
        yield f"{where}: {problem}"


@lru_cache(maxsize=256)
def option_docs(config: type) -> dict[str, str]:
    """The one-line doc of every field, read from the docstrings below the fields, base classes included."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls) and cls.__module__ != "types":
            docs |= _field_docs(cls)
    return docs


def _field_docs(cls: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError, SyntaxError):  # no source, or one that cannot be cut out of what surrounds it
        return {}
    docs = {}
    for node, following in itertools.pairwise(body):
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if documented and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            docs[node.target.id] = " ".join(str(following.value.value).split())
    return docs


def option_rows(config: type) -> list[tuple[str, str, str, str]]:
    """(name, type, default, doc) of every option, for ``plugins`` and the docs."""
    docs = option_docs(config)
    rows = []
    for field in dataclasses.fields(config):
        make = field.default_factory
        default = field.default if make is dataclasses.MISSING else make()
        shown = default.value if isinstance(default, Enum) else default
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        bounds = " and ".join(f"{_RULES[r][0]} {b:g}" for r, b in _bounds(field).items())
        doc = f"{docs.get(field.name, '')} {f'({bounds})' if bounds else ''}".strip()
        rows.append((field.name, kind, "required" if default is dataclasses.MISSING else str(shown), doc))
    return rows
