"""Which training rows are kept."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.pair_filters.length_ratio import LengthRatio
from selfreward.plugins.pair_filters.score_balance import ScoreBalance

PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_pair_filters() -> list[Plugin]:
    """The built-in pair filters."""
    return [
        Plugin.of("length_ratio", LengthRatio, f"against the growth in {PAPER} §3.2.1"),
        Plugin.of("score_balance", ScoreBalance, f"{PAPER} §3.1.1"),
    ]
