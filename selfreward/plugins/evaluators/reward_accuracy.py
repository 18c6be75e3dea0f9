"""Accuracy of a reward model: how often the reply that people preferred is the one with the higher reward.

The pairs come from a file (HH-RLHF, static HHH, PandaLM, OpenAssistant, or ``prompt``, ``chosen``, ``rejected``; its
columns tell which, see ``preference_pairs``), or without one from the ranked answers of the data's split
``judge_evaluation``. How they are counted is told in ``pair_accuracy``; a pair with a reply that does not fit into the
model's context is left out, and counted.

``reward_gap`` is the mean of r(chosen) - r(rejected), the log-odds that the model gives the preference
(arXiv:1706.03741 eq. 1). Where it grows and accuracy does not, the model grows sure, not right.
Source: arXiv:2009.01325 §4.3, arXiv:2204.05862 §3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfreward import AnsweredPrompt, EvaluationContext, Metric
from selfreward.plugins.evaluators.intervals import mean_interval
from selfreward.plugins.evaluators.pair_accuracy import PairsConfig, PairScoring, Score, continuations, human_pairs
from selfreward.plugins.evaluators.preference_pairs import Pair


@dataclass
class RewardAccuracyConfig(PairsConfig):
    """Which pairs; without ``path`` the ranked answers of the data's ``judge_evaluation``."""

    booleans_as_text: bool = False
    """Take a response that is JSON's true for the text True; otherwise such rows are left out and counted."""


class RewardAccuracy(PairScoring):
    """Accuracy over all pairs and over those of each category, and the mean rewards."""

    config: RewardAccuracyConfig
    name = "reward_accuracy"
    measures = "reward"

    def pairs(self, context: EvaluationContext) -> list[Pair]:
        return human_pairs(context, self.config.path, self.config.booleans_as_text)

    def scores(self, groups: Sequence[AnsweredPrompt], context: EvaluationContext) -> list[dict[str, Score]]:
        asked = continuations(groups)
        rewards = zip(asked, context.rewards(asked), strict=True)
        return [dict(zip(map(str, request.replies), found, strict=True)) for request, found in rewards]

    def means(self, scored: Sequence[tuple[Score, Score]], context: EvaluationContext) -> Iterator[Metric]:
        """``reward_chosen``, ``reward_rejected`` and ``reward_gap`` over the pairs."""
        both = [(chosen, rejected) for chosen, rejected in scored if chosen is not None and rejected is not None]
        figures = {
            "reward_chosen": [chosen for chosen, _ in both],
            "reward_rejected": [rejected for _, rejected in both],
            "reward_gap": [chosen - rejected for chosen, rejected in both],
        }
        for name, values in figures.items():
            enough = len(values) >= self.config.min_items
            known = (fmean(values), *mean_interval(values)) if enough else (None, None, None)
            yield Metric(context.model, self.name, name, *known, len(values))
