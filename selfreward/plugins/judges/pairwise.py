"""Pairwise comparison: the model says which of two answers to a prompt is better, and wins become scores.

Every pair is shown in both orders. An answer wins only where both verdicts say so; where they disagree it is a tie (the
judge went by the order), and where one of them cannot be read the comparison is left out. With w[i, j] in {1, ½, 0} for
what i got against j::

    win_rate         score of i = mean of w[i, j] over the j it was compared with
    bradley_terry    θ = argmax Σ_ij w[i, j]·log σ(θ_i − θ_j) − ½·PRIOR·Σ_i θ_i²
                     score of i = mean of σ(θ_i − θ_j) over all other j

Both lie in 0..1. Where every pair was compared they agree but for the prior; where some could not be read, or each
answer met only some of the others (``comparisons``), Bradley-Terry makes up for who the opponents were. The prior (a
normal one, of precision PRIOR) keeps the strength of an answer finite that won all of its comparisons.

Nothing depends on the order in which the candidates are given: draws, seeds and sums go by their ids.

Source: arXiv:2306.05685 §3.1 and §3.4 (both orders); Bradley and Terry 1952, fitted by ``scipy.optimize``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import TYPE_CHECKING

from selfreward import (
    AnsweredPrompt,
    Candidate,
    Completion,
    Judgement,
    Request,
    Rubric,
    Sampling,
    StageContext,
    option,
)
from selfreward.plugins.judges.review import AskingJudge, ReviewConfig, dialogue, reference_of, references, unasked

if TYPE_CHECKING:
    import numpy as np

PRIOR = 0.1
_DECIMALS = 6  # of a score: the fit is good to more of them, and equal answers are to tie


class Scoring(Enum):
    """How wins become scores."""

    win_rate = "win_rate"
    bradley_terry = "bradley_terry"


@dataclass
class PairwiseConfig(ReviewConfig):
    """Options of ``judge=pairwise``."""

    rubric: str | None = "pairwise"
    """Name of a rubric that compares, a path to its .yaml file, or FILE.jsonl:NAME."""
    comparisons: int | None = option(None, ge=1)
    """Other answers that each answer is compared with (one of them with one more, where it has to be); None = all."""
    score: Scoring = Scoring.win_rate
    """win_rate: the share of comparisons won; bradley_terry: the same, made up for who the opponents were."""
    temperature: float = option(0.0, ge=0)
    """Sampling temperature of verdicts; 0 is greedy."""
    top_p: float = option(1.0, gt=0, le=1)
    """Nucleus of verdicts: the smallest set of tokens with this much probability is sampled from."""
    max_new_tokens: int = option(512, ge=1)
    """Tokens a verdict may have, its reasons included."""


@dataclass(frozen=True)
class Comparison:
    """Two answers and the verdicts on them: with ``a`` shown first, and with ``b`` shown first."""

    a: str
    b: str
    worths: tuple[float | None, float | None]
    """What the answer that was shown first got: 1, ½ (a tie), 0, or None where the verdict cannot be read."""
    words: tuple[str, str]

    @property
    def result(self) -> float | None:
        """What ``a`` got: ½ where the verdicts disagree, None where one cannot be read."""
        one, other = self.worths
        if one is None or other is None:
            return None
        return 0.5 if self.by_order else one

    @property
    def by_order(self) -> bool:
        """Whether the verdicts disagree: the order decided, and not the answers."""
        one, other = self.worths
        return one is not None and other is not None and one != 1 - other

    def of(self, candidate_id: str) -> float | None:
        """What one of the two got."""
        return self.result if self.result is None or candidate_id == self.a else 1 - self.result

    def words_on(self, candidate_id: str) -> str:
        """The judge's words, with the place in which this one was shown."""
        opponent, places = (self.b, "AB") if candidate_id == self.a else (self.a, "BA")
        return "\n\n".join(f"[as {p} against {opponent}] {w}" for p, w in zip(places, self.words, strict=True))


class Pairwise(AskingJudge):
    """Compares the candidates of a prompt two by two."""

    name = "pairwise"
    compares = True
    config: PairwiseConfig

    @property
    def replies(self) -> int:
        """Each of a comparison's two orders counts for one of its answers; how many all others are is not known."""
        return self.config.comparisons or 1

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate, with a vote for each of its comparisons. All are one call of the model."""
        rubric = self.rubric(context)
        best = references(context.data, context.run_seed) if rubric.needs_reference else {}
        matches, requests, why_not = [], [], []
        for group in answered:
            pairs = draw(group.candidates, self.config.comparisons, context)
            asked, misfit = self._questions(group, pairs, rubric, reference_of(group, best), context)
            requests += asked
            matches.append([] if misfit else pairs)
            why_not.append(misfit or "compares two answers, and there is no other one")
        replies = (reply for [reply] in context.generate(requests))
        for group, pairs, misfit in zip(answered, matches, why_not, strict=True):
            compared = [self._compared(a, b, next(replies), next(replies), rubric, context) for a, b in pairs]
            scores = scored(compared, self.config.score)
            for candidate in group.candidates:
                own = [c for c in compared if candidate.candidate_id in (c.a, c.b)]
                if own:
                    yield self._judgement(candidate, own, scores, rubric, context)
                else:
                    yield unasked(candidate, self.name, rubric, context, misfit)

    def _questions(
        self,
        group: AnsweredPrompt,
        pairs: Sequence[tuple[Candidate, Candidate]],
        rubric: Rubric,
        reference: list[str],
        context: StageContext,
    ) -> tuple[list[Request], str]:
        """Every pair in both orders, or why the rubric cannot be asked about this prompt."""
        c, asked = self.config, []
        how = Sampling(c.temperature, c.top_p, max_new_tokens=c.max_new_tokens)
        for first, second in (order for a, b in pairs for order in ((a, b), (b, a))):
            shown = [dialogue(group.prompt, candidate.text) for candidate in (first, second)]
            if misfit := rubric.misfit(*shown, references=reference):
                return [], misfit
            seed = context.seed(first.candidate_id, second.candidate_id)
            question = rubric.messages(*shown, references=reference)
            asked.append(Request(question, how, seed, reply_prefix=rubric.reply_prefix))
        return asked, ""

    def _compared(
        self, a: Candidate, b: Candidate, said: Completion, other: Completion, rubric: Rubric, context: StageContext
    ) -> Comparison:
        one, two = (rubric.read(reply.text, cut_off=reply.finish_reason == "length") for reply in (said, other))
        words = (rubric.reply_prefix + said.text, rubric.reply_prefix + other.text)
        made = Comparison(a.candidate_id, b.candidate_id, (one, two), words)
        left_out, by_order = made.result is None, made.by_order
        context.count(comparisons=1, comparisons_left_out=left_out, comparisons_by_order=by_order)
        return made

    def _judgement(
        self,
        candidate: Candidate,
        own: Sequence[Comparison],
        scores: dict[str, float],
        rubric: Rubric,
        context: StageContext,
    ) -> Judgement:
        mine = candidate.candidate_id
        votes, words = [c.of(mine) for c in own], [c.words_on(mine) for c in own]
        return Judgement(
            mine, self.name, context.model, rubric.name, votes, scores.get(mine), words, context.seed(mine)
        )


def draw(candidates: Sequence[Candidate], most: int | None, context: StageContext) -> list[tuple[Candidate, Candidate]]:
    """The pairs that are compared: all, or neighbours on a ring in an order that the seed decides.

    On the ring everybody meets ``most`` others, and from two on there is a way from everybody to everybody.
    """
    ring = sorted(candidates, key=lambda c: context.seed("ring", c.candidate_id))
    size = len(ring)
    if most is None or most >= size - 1:
        met = list(itertools.combinations(range(size), 2))
    else:
        met = [(k, (k + step) % size) for step in range(1, most // 2 + 1) for k in range(size)]
        if most % 2:
            met += [(k, k + size // 2) for k in range((size + 1) // 2)]
    return [(ring[i], ring[j]) for i, j in met]


def scored(compared: Sequence[Comparison], how: Scoring) -> dict[str, float]:
    """The score of every candidate that was in a comparison that could be read, by its id."""
    read = [(c.a, c.b, c.result) for c in compared if c.result is not None]
    ids = sorted({candidate for a, b, _ in read for candidate in (a, b)})
    got = {(a, b): result for a, b, result in read} | {(b, a): 1 - result for a, b, result in read}
    if how is Scoring.win_rate:
        scores = [fmean(got[pair] for pair in got if pair[0] == one) for one in ids]
    else:
        scores = _expected_wins([[got.get((a, b), 0.0) for b in ids] for a in ids])
    return {one: round(score, _DECIMALS) for one, score in zip(ids, scores, strict=True)}


def _expected_wins(wins: list[list[float]]) -> list[float]:
    """The mean probability with which each would win against any other."""
    import numpy as np
    from scipy.special import expit

    if not wins:
        return []
    strengths = bradley_terry(np.array(wins))
    chances = expit(strengths[:, None] - strengths)
    np.fill_diagonal(chances, 0)
    return [float(share) for share in chances.sum(axis=1) / (len(wins) - 1)]


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths θ, most probable under σ(θ_i − θ_j) and the prior; they add up to 0.

    Args:
        wins: n x n, what i got against j; 0 on the diagonal and where they did not meet.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    def loss(strengths: np.ndarray) -> tuple[float, np.ndarray]:
        gaps = strengths[:, None] - strengths
        surprise = wins * expit(-gaps)
        slope = surprise.sum(axis=0) - surprise.sum(axis=1) + PRIOR * strengths
        return float(PRIOR * strengths @ strengths / 2 - (wins * log_expit(gaps)).sum()), slope

    return np.asarray(minimize(loss, np.zeros(len(wins)), jac=True, method="BFGS", options={"gtol": 1e-9}).x)
