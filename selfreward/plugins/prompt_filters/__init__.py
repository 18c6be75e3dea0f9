"""Which prompts are kept."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.prompt_filters.contamination import Contamination
from selfreward.plugins.prompt_filters.keywords import Keywords
from selfreward.plugins.prompt_filters.length import Length
from selfreward.plugins.prompt_filters.near_duplicate import NearDuplicate
from selfreward.plugins.prompt_filters.rouge_l import RougeL


@hookimpl
def selfreward_prompt_filters() -> list[Plugin]:
    """The built-in prompt filters."""
    return [
        Plugin.of("rouge_l", RougeL, "arXiv:2212.10560 §2.2"),
        Plugin.of("keywords", Keywords, "arXiv:2212.10560 §2.2"),
        Plugin.of("length", Length, "arXiv:2212.10560 §2.2"),
        Plugin.of("near_duplicate", NearDuplicate, "arXiv:2107.06499 §4.2"),
        Plugin.of("contamination", Contamination, "arXiv:2005.14165 app. C"),
    ]
