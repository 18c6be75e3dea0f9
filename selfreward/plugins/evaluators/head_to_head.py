"""Head to head: how often a model's answer beats another model's answer to the same held-out prompt.

Which of the two is better is told by truth, by a judge's scores of each, or by a judge that sees both (``by``, see
``winner.py``). The lengths of both sides stand beside the shares, and what the win rate would be at equal length.
Source: arXiv:2401.10020 §3.1.1 and §3.2.1; arXiv:2404.04475.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfreward import AnsweredPrompt, EvaluationContext, Figure, Metric, Plot, role
from selfreward.plugins.evaluators.compare_pairs import SHARES, Figures, judge_of, opponent
from selfreward.plugins.evaluators.winner import WinnerConfig, WinnerEvaluator


@dataclass
class HeadToHeadConfig(WinnerConfig):
    """Who is compared with whom, and how."""

    against: str = role("previous", "previous", "judge")
    """The other model: previous, a role (base, M0, sft, M1, ...) or the path of a model folder."""


class HeadToHead(WinnerEvaluator):
    """Shares of wins, ties and losses against another model; nothing where there is no other."""

    name = "head_to_head"
    config: HeadToHeadConfig
    title = "Against the model before"
    figures = (
        Figure("win", better="higher", share=True, row="win/tie/lose", compared=True),
        Figure("tie", share=True, row="win/tie/lose", compared=True),
        Figure("lose", better="lower", share=True, row="win/tie/lose", compared=True),
        Figure("lc_win_rate", better="higher", share=True, row="win rate at equal length"),
        *SHARES,
    )
    plots = (
        Plot("Win, tie, lose", "Against the model before, on held-out prompts", ("win", "tie", "lose"),
             ("win", "tie", "lose"), stacked=True),
    )  # fmt: skip

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """The shares. A pair in which a verdict is missing is left out, and counted as ``unscored_pairs``."""
        theirs = self._their_answers(context)
        judge = judge_of(context, self.config.judge_model)
        if theirs is None or judge is None:
            return
        known = {group.prompt.prompt_id: group for group in theirs}
        met = [(mine, known[mine.prompt.prompt_id]) for mine in context.answers if mine.prompt.prompt_id in known]
        pairs, more = self.decided(met, judge, context)
        yield from Figures(context.model, self.name).pairs(pairs)
        yield from more

    def _their_answers(self, context: EvaluationContext) -> Sequence[AnsweredPrompt] | None:
        if self.config.against == "previous":
            return context.previous[1] if context.previous else None
        found = opponent(context, self.config.against)
        return found.answers if found else None
