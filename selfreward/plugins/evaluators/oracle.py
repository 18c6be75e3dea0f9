"""The ground truth about a model's answers, where the data has one.

Every key of ``data.truth`` averaged over the answers to the held-out prompts: ``true_score`` as a mean with a normal
95 % interval, the 0/1 criteria as shares with Wilson's. Data without a truth gives no figures, which is no error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from selfreward import EvaluationContext, Evaluator, Figure, Metric, Plot
from selfreward.plugins.evaluators.intervals import mean_interval, share_interval


@dataclass
class OracleConfig:
    """It has no options."""


class Oracle(Evaluator):
    """Mean true score and the share of answers that meet each criterion."""

    uses_model = False
    config: OracleConfig
    title = "Ground truth"
    figures = (
        Figure("true_score", "True score (0–5)", "{:.2f}", "higher", row="true score (0-5)", compared=True),
        Figure("fully_correct", "", "{:.2f}", "higher", share=True, row="fully correct", compared=True),
        Figure("fluent", "", "{:.2f}", "higher", share=True, row="fluent", compared=True),
    )
    plots = (
        Plot("True score", "Mean of the data's ground truth", ("true_score",)),
        Plot("Fully correct, fluent", "Share of the answers", ("fully_correct", "fluent")),
    )

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """One figure per key of the truth; answers to prompts the truth knows nothing about are left out."""
        values: dict[str, list[float]] = {}
        for group in context.answers:
            for answer in group.candidates:
                for key, value in (context.data.truth(group.prompt, answer.text) or {}).items():
                    values.setdefault(key, []).append(float(value))
        for key, known in values.items():
            is_share = key != "true_score" and set(known) <= {0.0, 1.0}
            low, high = share_interval(int(sum(known)), len(known)) if is_share else mean_interval(known)
            yield Metric(context.model, "oracle", key, fmean(known), low, high, len(known))
