"""The micro world, embedded and offline: it announces itself through the hooks that a stranger's package would use."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.micro.data import MicroData
from selfreward.plugins.micro.model import MicroModel


@hookimpl
def selfreward_models() -> list[Plugin]:
    """A Llama of 717,952 parameters."""
    return [Plugin.of("micro", MicroModel, "embedded, offline")]


@hookimpl
def selfreward_data() -> list[Plugin]:
    """An instruction language with a true quality of every answer."""
    return [Plugin.of("micro", MicroData, "embedded, with a ground truth")]
