"""Which rounds are run."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.recipes.none import NoRounds
from selfreward.plugins.recipes.rlhf import Rlhf
from selfreward.plugins.recipes.self_rewarding import SelfRewarding


@hookimpl
def selfreward_recipes() -> list[Plugin]:
    """The built-in recipes."""
    return [
        Plugin.of("self_rewarding", SelfRewarding, "arXiv:2401.10020 §2.4"),
        Plugin.of("rlhf", Rlhf, "arXiv:2203.02155 §3, arXiv:2204.05862 §4.5"),
        Plugin.of("none", NoRounds, "nothing is trained"),
    ]
