"""The micro world announces itself through the hooks that a stranger's package would use."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.micro.data import MicroConfig
from selfreward.plugins.micro.model import MicroModelConfig


@hookimpl
def selfreward_models() -> list[Plugin]:
    """The model."""
    return [Plugin("micro", "selfreward.plugins.micro.model:MicroModel", MicroModelConfig, "embedded, offline")]


@hookimpl
def selfreward_data() -> list[Plugin]:
    """The data."""
    return [Plugin("micro", "selfreward.plugins.micro.data:MicroData", MicroConfig, "embedded, with a ground truth")]
