"""Seed prompts, human answers, held-out sets."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.data.hh_rlhf import HhRlhf
from selfreward.plugins.data.none import NoData
from selfreward.plugins.data.oasst import Oasst
from selfreward.plugins.data.pandalm import PandaLm
from selfreward.plugins.data.self_instruct import SelfInstructData
from selfreward.plugins.data.table import Table


@hookimpl
def selfreward_data() -> list[Plugin]:
    """The built-in data."""
    return [
        Plugin.of("table", Table),
        Plugin.of("jsonl", Table, "the older name of table"),
        Plugin.of("oasst", Oasst, "arXiv:2304.07327"),
        Plugin.of("self_instruct", SelfInstructData, "arXiv:2212.10560 §2.2"),
        Plugin.of("hh_rlhf", HhRlhf, "arXiv:2204.05862"),
        Plugin.of("pandalm", PandaLm, "arXiv:2306.05087"),
        Plugin.of("none", NoData, "nothing is read"),
    ]
