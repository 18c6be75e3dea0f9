"""Who watches a run."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.monitors.health import Health
from selfreward.plugins.monitors.report import Report


@hookimpl
def selfreward_monitors() -> list[Plugin]:
    """The built-in monitors."""
    return [
        Plugin.of("health", Health, "arXiv:2401.10020 §3.2"),
        Plugin.of("report", Report),
    ]
