"""Stage 1: new prompts."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.prompt_generators.dataset import Dataset
from selfreward.plugins.prompt_generators.self_instruct import SelfInstruct

PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_prompt_generators() -> list[Plugin]:
    """The built-in prompt generators."""
    return [
        Plugin.of("self_instruct", SelfInstruct, f"{PAPER} §2.2"),
        Plugin.of("dataset", Dataset, f"{PAPER} §2.1"),
    ]
