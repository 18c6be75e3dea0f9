"""Two answers to one prompt, compared: by a judge that sees both, in both orders; and what many comparisons say.

::

    preference = 1 the model's answer wins, 0 the other's, ½ a tie
    both orders: the judge sees A, B and then B, A; a win is a win in both, and a disagreement is a tie
    win_rate   = mean preference; lc_win_rate = the same at equal length (length_control)

Answers that are the same tie without being judged. A comparison of which a verdict could not be read is left out and
counted in ``parse_rate``. No figure stands on fewer than two items. Win, tie and lose have Wilson's interval; so has
the win rate, for which it is wide rather than narrow: a tie varies less than a coin does.
Source: arXiv:2401.10020 §3.1.1 (GPT-4 in both orders), arXiv:2306.05685 §3.4 (position bias).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfreward import Completion, EvaluationContext, Figure, Message, Metric, Request, Rubric, Sampling
from selfreward.plugins.evaluators.intervals import mean_interval, share_interval
from selfreward.plugins.evaluators.length_control import length_controlled


@dataclass(frozen=True)
class Pair:
    """The answers of both sides to one prompt."""

    item: str
    """What the judge's seeds are derived from: the id of the prompt."""
    mine: Sequence[Message]
    """The conversation with the model's answer at its end."""
    theirs: Sequence[Message]
    """The conversation with the other side's; its earlier answers may differ, too."""
    references: Sequence[str] = ()
    """A good answer to each user turn, where there is one."""
    preference: float | None = None
    """1 mine, 0 theirs, ½ tie, or between; None = not judged, or unreadable."""

    @property
    def difference(self) -> int:
        """Characters by which the model's answer is longer."""
        return len(self.mine[-1]["content"]) - len(self.theirs[-1]["content"])


@dataclass(frozen=True)
class Compared:
    """What the judge said of a pair."""

    preference: float | None
    verdicts: tuple[float | None, ...] = ()
    """For the model's answer, one per order; none where the answers are the same."""
    rationales: tuple[str, ...] = ()


def in_both_orders(
    pairs: Sequence[Pair], rubrics: Sequence[Rubric], judge: EvaluationContext, sampling: Sampling
) -> list[Compared]:
    """Ask the judge about every pair, the model's answer first and then second, in one call of the model."""
    differ = [pair.mine != pair.theirs for pair in pairs]
    requests = [
        Request(
            rubric.messages(*(sides if order == 0 else sides[::-1]), references=pair.references),
            sampling,
            judge.seed("pair", order, pair.item),
            reply_prefix=rubric.reply_prefix,
        )
        for pair, rubric, asked in zip(pairs, rubrics, differ, strict=True)
        if asked
        for sides in [(pair.mine, pair.theirs)]
        for order in (0, 1)
    ]
    replies = iter([reply for [reply] in judge.generate(requests)])
    return [
        _agreed(rubric, next(replies), next(replies)) if asked else Compared(0.5)
        for rubric, asked in zip(rubrics, differ, strict=True)
    ]


def _agreed(rubric: Rubric, forward: Completion, backward: Completion) -> Compared:
    one, other = (rubric.read(reply.text, cut_off=reply.finish_reason == "length") for reply in (forward, backward))
    other = None if other is None else 1 - other
    both = None if one is None or other is None else one if one == other else 0.5
    return Compared(both, (one, other), (rubric.reply_prefix + forward.text, rubric.reply_prefix + backward.text))


SHARES = (
    Figure("*win", better="higher", share=True),
    Figure("*tie", share=True),
    Figure("*lose", better="lower", share=True),
    Figure("*win_rate", better="higher", share=True),
    Figure("*parse_rate", better="higher", share=True),
    Figure("*orders_agree", better="higher", share=True),
)
"""How the shares that :class:`Figures` makes are shown, whatever their prefix."""


@dataclass(frozen=True)
class Figures:
    """Makes an evaluator's metrics; ``prefix`` tells its figures from those of the same name elsewhere."""

    model: str
    evaluator: str
    prefix: str = ""

    def share(self, name: str, hits: float, n: int) -> Metric:
        """A share of n items, with Wilson's interval."""
        low, high = share_interval(hits, n) if n > 1 else (None, None)
        return self.of(name, hits / n if n > 1 else None, low, high, n)

    def mean(self, name: str, found: Sequence[float]) -> Metric:
        """A mean with its normal interval."""
        low, high = mean_interval(found)
        return self.of(name, fmean(found) if len(found) > 1 else None, low, high, len(found))

    def of(self, name: str, value: float | None, low: float | None, high: float | None, n: int) -> Metric:
        return Metric(self.model, self.evaluator, self.prefix + name, value, low, high, n)

    def pairs(self, pairs: Sequence[Pair], difficulty: Sequence[float] | None = None) -> Iterator[Metric]:
        """Wins, ties, losses, win rate, length-controlled win rate, and the lengths of both sides in characters."""
        judged = [(pair, pair.preference) for pair in pairs if pair.preference is not None]
        liked, n = [preference for _, preference in judged], len(judged)
        yield self.share("win", sum(p > 0.5 for p in liked), n)
        yield self.share("tie", sum(p == 0.5 for p in liked), n)
        yield self.share("lose", sum(p < 0.5 for p in liked), n)
        yield self.win_rate("win_rate", pairs)
        controlled = length_controlled(liked, [pair.difference for pair, _ in judged], difficulty)
        value, low, high = controlled or (None, None, None)
        yield self.of("lc_win_rate", value, low, high, n)
        yield self.mean("answer_length", [len(pair.mine[-1]["content"]) for pair, _ in judged])
        yield self.mean("against_length", [len(pair.theirs[-1]["content"]) for pair, _ in judged])

    def win_rate(self, name: str, pairs: Sequence[Pair]) -> Metric:
        """The mean preference."""
        liked = [pair.preference for pair in pairs if pair.preference is not None]
        return self.share(name, sum(liked), len(liked))

    def parsed(self, verdicts: Sequence[float | None]) -> Metric:
        """The share of the verdicts asked for that could be read."""
        return self.share("parse_rate", sum(verdict is not None for verdict in verdicts), len(verdicts))

    def orders_agree(self, compared: Sequence[Compared]) -> Metric:
        """The share of the pairs, read in both orders, on which the judge said the same in both."""
        read = [c.verdicts for c in compared if c.verdicts and None not in c.verdicts]
        return self.share("orders_agree", sum(one == other for one, other in read), len(read))


def judge_of(context: EvaluationContext, judge_model: str | None) -> EvaluationContext | None:
    """The context in which the judge is run: this model's own, or another's; None where no model plays that role."""
    return context if judge_model is None else context.other(judge_model)


def opponent(context: EvaluationContext, against: str) -> EvaluationContext | None:
    """The context of the model it is compared with: ``previous``, a role or a folder.

    None where there is none (yet), and where it is this model itself.
    """
    if against == "previous":
        if context.previous is None:
            return None
        against = context.previous[0]
    found = context.other(against)
    return None if found is None or found.model == context.model else found


def rubric_problems(evaluator: str, rubric: Rubric, compares: bool = True) -> list[str]:
    """What is wrong with the rubric of an evaluator that compares (or grades) answers."""
    if rubric.compares == compares:
        return []
    does, wanted = ("scores one answer", "compares two") if compares else ("compares two answers", "scores one")
    return [f"{evaluator}: rubric {rubric.name} {does}; name one that {wanted}: {evaluator}.rubric="]
