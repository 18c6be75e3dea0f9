"""What is measured."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.evaluators.alpaca_eval import AlpacaEval
from selfreward.plugins.evaluators.elo import Elo
from selfreward.plugins.evaluators.head_to_head import HeadToHead
from selfreward.plugins.evaluators.hhh import Hhh
from selfreward.plugins.evaluators.judge_agreement import JudgeAgreement
from selfreward.plugins.evaluators.lm_eval import LmEval
from selfreward.plugins.evaluators.lm_loss import LmLoss
from selfreward.plugins.evaluators.mt_bench import MtBench
from selfreward.plugins.evaluators.oracle import Oracle
from selfreward.plugins.evaluators.preference_accuracy import PreferenceAccuracy
from selfreward.plugins.evaluators.reward_accuracy import RewardAccuracy
from selfreward.plugins.evaluators.truthfulqa_mc1 import TruthfulQaMc1
from selfreward.plugins.evaluators.vicuna import Vicuna

PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_evaluators() -> list[Plugin]:
    """The built-in evaluators, in the order in which their figures are shown."""
    return [
        Plugin.of("oracle", Oracle, "the data's ground truth"),
        Plugin.of("head_to_head", HeadToHead, f"{PAPER} §3.1.2"),
        Plugin.of("elo", Elo, "arXiv:2204.05862, arXiv:2403.04132"),
        Plugin.of("judge_agreement", JudgeAgreement, f"{PAPER} §3.1.2"),
        Plugin.of("vicuna", Vicuna, "arXiv:2305.13735"),
        Plugin.of("mt_bench", MtBench, "arXiv:2306.05685"),
        Plugin.of("alpaca_eval", AlpacaEval, "arXiv:2305.14387, arXiv:2404.04475"),
        Plugin.of("hhh", Hhh, "arXiv:2112.00861"),
        Plugin.of("preference_accuracy", PreferenceAccuracy),
        Plugin.of("reward_accuracy", RewardAccuracy, "arXiv:2009.01325"),
        Plugin.of("truthfulqa_mc1", TruthfulQaMc1, "arXiv:2109.07958"),
        Plugin.of("lm_loss", LmLoss, "the alignment tax, arXiv:2112.00861"),
        Plugin.of("lm_eval", LmEval, "github.com/EleutherAI/lm-evaluation-harness"),
    ]
