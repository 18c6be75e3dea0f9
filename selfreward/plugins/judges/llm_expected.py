"""The score a model expects to give: the mean of its own distribution over the rubric's scores.

score = Σ s·P(s), P = softmax over log p(text of s | question, review, "Score:"), s = low, low + 1, ..., high.
No verdict is drawn, so none is lost to chance: one pass says more than many votes, and ties are rare.
Source: G-Eval, arXiv:2303.16634 §2 (scoring function).

With ``thoughts`` the model writes that many reviews first, each up to its verdict, and the score is the mean over them.

**Mass** = Σ p(text of s), before the softmax, is how much of the model's probability the scores had at all. Where it is
tiny the model was about to say something else and P is an artefact: the vote is None, as a verdict is that cannot be
read. A judge that was taught to reason first needs its thoughts: the micro world's has a mass of 1 after them, and of
one in a million without. ``score_mass`` in the stage's counters is the sum of the masses over all votes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfreward import Continuations, Judgement, Likelihood, Request, Rubric, Sampling, StageContext, option
from selfreward.plugins.judges.review import Asked, ReviewConfig, ReviewJudge, VerdictForm

_DECIMALS = 4  # of a score: float32 log-probabilities carry no more, and equal answers are to tie


@dataclass
class LlmExpectedConfig(ReviewConfig):
    """Options of ``judge=llm_expected``."""

    thoughts: int = option(0, ge=0)
    """Reviews that are sampled before a score; 0: the score is asked for at once, without reasons."""
    min_mass: float = option(0.01, gt=0, le=1)
    """Probability that the scores together must have, or the vote is None: taught judges give them nearly all."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.thoughts > 1 and self.temperature == 0:
            return [
                f"thoughts={self.thoughts} at temperature=0 are all the same: set temperature above 0, or thoughts=1"
            ]
        return []


class LlmExpected(ReviewJudge):
    """Weighs every score instead of drawing one."""

    name = "llm_expected"
    config: LlmExpectedConfig

    @property
    def replies(self) -> int:
        return self.config.thoughts

    def review(self, asked: Sequence[Asked], rubric: Rubric, context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate, with a vote for each review, or a single one without reviews."""
        form = VerdictForm.of(rubric)
        prefixes = [[form.after(review) for review in group] for group in self._reviews(asked, rubric, form, context)]
        weighed = iter(
            context.likelihoods(
                [
                    Continuations(question, form.texts, prefix, ended=form.is_open)
                    for (_, question), group in zip(asked, prefixes, strict=True)
                    for prefix in group
                ]
            )
        )
        for (candidate, _), group in zip(asked, prefixes, strict=True):
            verdicts = [Expectation.of(form.scores, next(weighed)) for _ in group]
            votes = [verdict.vote(self.config.min_mass) for verdict in verdicts]
            readable = [v for v in votes if v is not None]
            context.count(score_mass=math.fsum(verdict.mass for verdict in verdicts))
            yield Judgement(
                candidate.candidate_id,
                self.name,
                context.model,
                rubric.name,
                votes,
                round(fmean(readable), _DECIMALS) if readable else None,
                [f"{prefix} {verdict}" for prefix, verdict in zip(group, verdicts, strict=True)],
                context.seed(candidate.candidate_id) if self.config.thoughts else 0,
            )

    def _reviews(
        self, asked: Sequence[Asked], rubric: Rubric, form: VerdictForm, context: StageContext
    ) -> list[list[str]]:
        """What stands before the verdicts of each candidate. A review that was cut off is taken as far as it came."""
        c = self.config
        if not c.thoughts:
            return [[rubric.reply_prefix] for _ in asked]
        how = Sampling(c.temperature, c.top_p, max_new_tokens=c.max_new_tokens, stop=(form.words,))
        requests = [
            Request(question, how, context.seed(candidate.candidate_id), c.thoughts, rubric.reply_prefix)
            for candidate, question in asked
        ]
        reviews = context.generate(requests)
        context.count(cut_off=sum(review.finish_reason == "length" for group in reviews for review in group))
        return [[rubric.reply_prefix + review.text for review in group] for group in reviews]


@dataclass(frozen=True)
class Expectation:
    """The probability of each score's text; None where prompt and score are too long for the context."""

    numbers: Sequence[float]
    probabilities: Sequence[float] | None

    @classmethod
    def of(cls, scores: dict[str, float], likelihoods: Sequence[Likelihood]) -> Expectation:
        """From the likelihoods of the scores' texts, in their order."""
        fits = all(likelihood.token_ids for likelihood in likelihoods)
        probabilities = [math.exp(likelihood.total) for likelihood in likelihoods] if fits else None
        return cls(list(scores.values()), probabilities)

    @property
    def mass(self) -> float:
        """Probability of all scores together."""
        return math.fsum(self.probabilities or ())

    def vote(self, min_mass: float) -> float | None:
        """Σ s·p(s) / Σ p(s), or None where the mass is below ``min_mass``."""
        if self.probabilities is None or self.mass < min_mass:
            return None
        total = math.fsum(s * p for s, p in zip(self.numbers, self.probabilities, strict=True))
        return round(total / self.mass, _DECIMALS)

    def __str__(self) -> str:
        """The distribution in words: ``0 .01, 3 .57, 4 .42 (expected 3.39, mass 0.98)``."""
        if not self.mass:
            return "(no score has any probability)" if self.probabilities else "(too long for the context)"
        shares = [(s, p / self.mass) for s, p in zip(self.numbers, self.probabilities or (), strict=True)]
        shown = ", ".join(f"{s:g} {f'{share:.2f}'.removeprefix('0')}" for s, share in shares if share >= 0.005)
        return f"{shown} (expected {math.fsum(s * share for s, share in shares):.2f}, mass {self.mass:.2g})"
