"""A registration: what a package says of a plugin before anything heavy is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from selfreward.core.errors import UserError


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
    check: Callable[[type], None] | None = field(default=None, compare=False, repr=False)
    """What its kind asks of the class; set by the registry, which knows the kind."""

    @classmethod
    def of(cls, name: str, made: type, source: str = "", partner: str | None = None) -> Plugin:
        """The registration of a class whose module is cheap to import and that declares ``config: Options``.

        Raises:
            TypeError: it does not say which dataclass its options are.
        """
        declared = [base for base in made.__mro__ if "config" in vars(base).get("__annotations__", {})]
        if not declared:
            raise TypeError(
                f"{made.__qualname__} does not declare its options; say `config: {made.__qualname__}Config`"
            )
        said = declared[0].__annotations__["config"]
        config = said if isinstance(said, type) else vars(sys.modules[declared[0].__module__])[said]
        return cls(name, f"{made.__module__}:{made.__qualname__}", config, source, partner)

    def load(self) -> Any:
        """Import the class, and check it where the registry gave this out.

        Raises:
            UserError: the module cannot be imported, has no such class, or the class does not do what its kind asks.
        """
        module, _, name = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as problem:
            absent = (getattr(problem, "name", None) or "").partition(".")[0]
            stranger = isinstance(problem, ModuleNotFoundError) and absent not in ("", module.partition(".")[0])
            mend = f"; install it: pip install {absent}" if stranger else ""
            raise UserError(f"'{self.name}' cannot be loaded from {self.target}: {problem}{mend}") from problem
        if self.check:
            self.check(loaded)
        return loaded
