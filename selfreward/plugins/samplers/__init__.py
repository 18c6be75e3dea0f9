"""Stage 2: candidates."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.samplers.human import Human
from selfreward.plugins.samplers.nucleus import Nucleus


@hookimpl
def selfreward_samplers() -> list[Plugin]:
    """The built-in samplers."""
    return [
        Plugin.of("nucleus", Nucleus, "arXiv:1904.09751 §3.1"),
        Plugin.of("human", Human, "arXiv:2401.10020 §2.1"),
    ]
