"""How well a model judges: agreement of its scores with human rankings.

The model scores the ranked answers to held-out instructions. With scores s and human ranks h (0 = best), per prompt:

- pairwise_accuracy: of the pairs on which the humans do not tie, the share that s orders as h; a judged tie is wrong;
- five_best: of the answers that get the rubric's highest score, the share that humans rank top;
- exact_match: share of prompts on which s orders all answers exactly as h does, ties included;
- spearman, kendall_tau: mean over prompts of ρ and τ-b; a judge that gives every answer the same score has ρ = τ = 0,
  prompts on which the humans tie throughout are left out;
- parse_rate: share of the verdicts asked for that could be read.

An answer without a readable score makes its pairs and its prompt's exact match wrong, is never a five_best, and counts
as tied lowest in ρ and τ: a judge gains nothing by being unreadable.

All but parse_rate come from one matrix per prompt, D[i, j] = sign(x_i - x_j), since τ-b = ΣDE / √(ΣD²·ΣE²) and the
centred mid-rank of i is ½·Σ_j D[i, j]. Intervals: percentile bootstrap over prompts, 1000 resamples.
Source: arXiv:2401.10020 §3.1 and table 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfreward import AnsweredPrompt, EvaluationContext, Evaluator, Figure, Judgement, Metric, Plot, option

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
NAMES = ("pairwise_accuracy", "five_best", "exact_match", "spearman", "kendall_tau", "parse_rate")


@dataclass
class JudgeAgreementConfig:
    """How much is judged."""

    n: int | None = option(None, ge=2)
    """Number of prompts that are judged, the first ones of the split; None = all."""


class JudgeAgreement(Evaluator):
    """Pairwise accuracy and its companions, with this model as the run's judge."""

    config: JudgeAgreementConfig
    title = "As a judge"
    figures = (
        Figure("pairwise_accuracy", "", "{:.2f}", "higher", share=True, row="judge: pairwise accuracy", compared=True),
        Figure("exact_match", "Whole order right", better="higher", share=True, compared=True),
        Figure("five_best", "Given 5, and is best", better="higher", share=True, compared=True),
        Figure("spearman", "Spearman's ρ", "{:.2f}", "higher", row="judge: spearman", compared=True),
        Figure("kendall_tau", "Kendall's τ", better="higher", compared=True),
        Figure("parse_rate", "Verdicts readable", "{:.1%}", "higher", share=True, row="judge: verdicts readable",
               compared=True),
    )  # fmt: skip
    plots = (
        Plot("Judge agreement", "The model's verdicts against the reference",
             ("pairwise_accuracy", "spearman", "kendall_tau", "exact_match")),
        Plot("Verdicts that could be read", "Share of the votes", ("parse_rate",), ("in evaluation",)),
    )  # fmt: skip

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """The six figures; None where fewer than two items stand behind one."""
        import numpy as np

        groups = ranked_groups(context.data.split("judge_evaluation", context.run_seed))[: self.config.n]
        judgements = context.judge(groups) if groups else []
        one_each = iter(judgements)
        highest = _highest(context, judgements[0].rubric) if judgements else np.inf
        rows = [
            agreement([c.rank or 0 for c in group.candidates], [next(one_each) for _ in group.candidates], highest)
            for group in groups
        ]
        table = np.array(rows, dtype=float).reshape(len(rows), len(NAMES), 2)
        lows, highs = bootstrap_intervals(table, context.seed("bootstrap"))
        for k, (name, (total, weight)) in enumerate(zip(NAMES, table.sum(axis=0), strict=True)):
            value = float(total / weight) if weight >= 2 else None
            several = value is not None and np.count_nonzero(table[:, k, 1]) >= 2  # one prompt alone has no spread
            low, high = (float(lows[k]), float(highs[k])) if several else (None, None)
            yield Metric(context.model, "judge_agreement", name, value, low, high, int(weight))


def ranked_groups(groups: Sequence[AnsweredPrompt]) -> list[AnsweredPrompt]:
    """The prompts with at least two answers that humans ranked, without their unranked answers."""
    ranked = [AnsweredPrompt(g.prompt, [c for c in g.candidates if c.rank is not None]) for g in groups]
    return [group for group in ranked if len(group.candidates) > 1]


def agreement(ranks: Sequence[int], judged: Sequence[Judgement], highest: float) -> list[tuple[float, float]]:
    """One prompt's (total, weight) for each of ``NAMES``; a figure is the sum of the totals over that of the weights.

    Args:
        ranks: k human ranks, lowest = best.
        judged: the k judgements.
        highest: the rubric's highest score.
    """
    import numpy as np

    is_scored = np.array([j.score is not None for j in judged])
    scores = np.array([-np.inf if j.score is None else j.score for j in judged])
    human, model = _signs(-np.asarray(ranks, dtype=float)), _signs(scores)
    right = (model == human) & np.outer(is_scored, is_scored)
    fives = is_scored & (scores >= highest)
    is_top = np.asarray(ranks) == min(ranks)
    humans_differ = float(human.any())
    votes = [vote for j in judged for vote in j.votes]
    return [
        (float((right & (human > 0)).sum()), float((human > 0).sum())),
        (float((fives & is_top).sum()), float(fives.sum())),
        (float(right.all()), 1.0),
        (_cosine(human.sum(axis=1), model.sum(axis=1)), humans_differ),
        (_cosine(human, model), humans_differ),
        (float(sum(vote is not None for vote in votes)), float(len(votes))),
    ]


def bootstrap_intervals(table: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile 95 % bounds of every figure, prompts drawn with replacement.

    Args:
        table: prompts x figures x (total, weight).
        seed: of the resamples.
    """
    import numpy as np

    prompts, figures, _ = table.shape
    if prompts < 2:
        return np.full(figures, np.nan), np.full(figures, np.nan)
    # how often each prompt is drawn, rather than which ones are: a resample is then one row of a matrix product
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES)
    sums = np.tensordot(drawn.astype(float), table, axes=1)
    lows, highs = np.full(figures, np.nan), np.full(figures, np.nan)
    for k in range(figures):
        total, weight = sums[:, k, 0], sums[:, k, 1]
        measured = weight > 0
        if measured.any():
            lows[k], highs[k] = np.percentile(total[measured] / weight[measured], [2.5, 97.5])
    return lows, highs


def _highest(context: EvaluationContext, rubric: str) -> float:
    """The rubric's highest score; infinity for a judge without a rubric, so that none of its answers is a five."""
    return float("inf") if rubric == "-" else context.rubric().high


def _signs(values: np.ndarray) -> np.ndarray:
    """D[i, j] = 1 where i is above j, -1 where it is below, 0 where they tie; infinities tie with themselves."""
    import numpy as np

    above = np.greater.outer(values, values).astype(int)
    return above - above.T


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """ΣAB / √(ΣA²·ΣB²), and 0 where one of them is 0 throughout."""
    import numpy as np

    norm = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum() / norm) if norm else 0.0
