"""Accuracy on human preferences: how often the model sides with what people preferred.

The pairs come from a file (HH-RLHF, PandaLM, OpenAssistant, or ``prompt``, ``chosen``, ``rejected``; its columns tell
which, see ``preference_pairs``), or without one from the ranked answers of the data's split ``judge_evaluation``. What
decides, and how ties count, is told in ``pair_accuracy``.

The control, "the longer reply wins" (``by=length``), is right on 44.6 % of HH-RLHF's harmless-base test, 68.8 % of
OpenAssistant's validation pairs and 67.4 % of PandaLM's, the last with ``booleans_as_text`` (894 pairs; 67.8 % of 888
without the six whose response is a JSON boolean).
Source: arXiv:2204.05862 §2, arXiv:2305.13735 §4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfreward import EvaluationContext
from selfreward.plugins.evaluators.pair_accuracy import PairAccuracy, PairAccuracyConfig, human_pairs
from selfreward.plugins.evaluators.preference_pairs import Pair


@dataclass
class PreferenceAccuracyConfig(PairAccuracyConfig):
    """Which pairs, and what decides; without ``path`` the ranked answers of the data's ``judge_evaluation``."""

    booleans_as_text: bool = False
    """Take a response that is JSON's true for the text True; otherwise such rows are left out and counted."""


class PreferenceAccuracy(PairAccuracy):
    """Accuracy over all pairs."""

    config: PreferenceAccuracyConfig
    name = "preference_accuracy"

    def pairs(self, context: EvaluationContext) -> list[Pair]:
        found = human_pairs(context, self.config.path, self.config.booleans_as_text)
        return [replace(pair, category="") for pair in found]
