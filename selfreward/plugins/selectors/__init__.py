"""Stage 4: what is trained on, each with the optimizer it brings along."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.selectors.agreement import Agreement
from selfreward.plugins.selectors.all_pairs import AllPairs
from selfreward.plugins.selectors.best_worst import BestWorst
from selfreward.plugins.selectors.demonstrations import Demonstrations
from selfreward.plugins.selectors.length_controlled import LengthControlled
from selfreward.plugins.selectors.positive_only import PositiveOnly
from selfreward.plugins.selectors.prompts import Prompts
from selfreward.plugins.selectors.random_pair import RandomPair
from selfreward.plugins.selectors.scored import ScoredAnswers

PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_selectors() -> list[Plugin]:
    """The built-in selectors."""
    return [
        Plugin.of("best_worst", BestWorst, f"{PAPER} §2.3", partner="dpo"),
        Plugin.of("positive_only", PositiveOnly, f"{PAPER} §2.3", partner="sft"),
        Plugin.of("length_controlled", LengthControlled, "arXiv:2407.19594 §2.2", partner="dpo"),
        Plugin.of("all_pairs", AllPairs, "arXiv:2203.02155 §3.5", partner="reward_model"),
        Plugin.of("agreement", Agreement, f"{PAPER} §3.1.1", partner="sft"),
        Plugin.of("demonstrations", Demonstrations, f"{PAPER} §2.1", partner="sft"),
        Plugin.of("prompts", Prompts, "arXiv:2203.02155 §3.2", partner="ppo"),
        Plugin.of("scored", ScoredAnswers, "arXiv:2305.13735 §2.3", partner="ppo"),
        Plugin.of("random_pair", RandomPair, "control: scores ignored", partner="dpo"),
    ]
