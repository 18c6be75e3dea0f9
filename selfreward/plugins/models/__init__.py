"""What is aligned."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.models.hf import HuggingFace


@hookimpl
def selfreward_models() -> list[Plugin]:
    """The built-in models."""
    return [
        Plugin.of("hf", HuggingFace),
    ]
