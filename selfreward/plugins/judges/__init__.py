"""Stage 3: scores."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.judges.ensemble import Ensemble
from selfreward.plugins.judges.human_rank import HumanRank
from selfreward.plugins.judges.implicit import Implicit
from selfreward.plugins.judges.length import Length
from selfreward.plugins.judges.llm_cot import LlmCot
from selfreward.plugins.judges.llm_expected import LlmExpected
from selfreward.plugins.judges.metric import MetricJudge
from selfreward.plugins.judges.oracle import Oracle
from selfreward.plugins.judges.pairwise import Pairwise
from selfreward.plugins.judges.random_score import Random
from selfreward.plugins.judges.reward_model import RewardModel

PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_judges() -> list[Plugin]:
    """The built-in judges."""
    return [
        Plugin.of("llm_cot", LlmCot, f"{PAPER} §2.2, figure 2"),
        Plugin.of("llm_expected", LlmExpected, "arXiv:2303.16634 §2"),
        Plugin.of("pairwise", Pairwise, "arXiv:2306.05685 §3"),
        Plugin.of("ensemble", Ensemble, "arXiv:2404.18796"),
        Plugin.of("reward_model", RewardModel, "arXiv:2009.01325 §3.4"),
        Plugin.of("implicit", Implicit, "arXiv:2305.18290 §5.1, arXiv:2406.09760"),
        Plugin.of("metric", MetricJudge, "arXiv:2210.01241 §3"),
        Plugin.of("human_rank", HumanRank, f"{PAPER} §2.1"),
        Plugin.of("random", Random, "control: knows nothing"),
        Plugin.of("length", Length, "control: the longer answer wins"),
        Plugin.of("oracle", Oracle, "control: the ground truth, an upper bound"),
    ]
