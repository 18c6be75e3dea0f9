"""How a model is run."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.engines.server.engine import ServerEngine
from selfreward.plugins.engines.transformers.engine import TransformersEngine
from selfreward.plugins.engines.vllm.engine import VllmEngine


@hookimpl
def selfreward_engines() -> list[Plugin]:
    """The built-in engines."""
    return [
        Plugin.of("transformers", TransformersEngine),
        Plugin.of("vllm", VllmEngine, "PagedAttention, arXiv:2309.06180"),
        Plugin.of("server", ServerEngine, "OpenAI's chat completions"),
    ]
