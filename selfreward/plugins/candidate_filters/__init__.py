"""Which candidates are judged."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.candidate_filters.length import Length


@hookimpl
def selfreward_candidate_filters() -> list[Plugin]:
    """The built-in candidate filters."""
    return [
        Plugin.of("length", Length),
    ]
