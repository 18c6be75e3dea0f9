"""Elo: one rating for every policy so far, from every pair of them on the held-out prompts.

::

    P(i beats j) = 1 / (1 + 10^(−(R_i − R_j) / 400))      ratings R, most probable under all outcomes (Bradley-Terry)

A tie is half a win for either side. Who wins a prompt is told by truth, by a judge's scores of each, or by a judge that
sees both in both orders (``by``, see ``winner.py``). Only differences mean something: the anchor has ``base_rating``.

A policy that wins everything has no finite rating. So every pair is given half a win on either side beforehand, which
for two policies is the correction of Haldane and Anscombe, and the mean of Jeffreys' prior; among some hundred prompts
it is hardly seen. The interval is the middle 95 % of a Bayesian bootstrap over the prompts: in each draw a prompt
counts, with all its pairs, w ~ Exp(1) times, and each of the half wins g ~ Gamma(½). For two policies that never tie
it is Jeffreys' interval of a share, which has a width where everything was won, too.

When a new policy is made all are rated anew. Its own figures are those of the newest rating.

Source: arXiv:2204.05862 (ratings of policies), arXiv:2403.04132 §4 (Bradley-Terry in place of running updates);
Rubin 1981 (the bootstrap); library: evalica.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfreward import EvaluationContext, Figure, Metric, Plot, option, role
from selfreward.plugins.evaluators.compare_pairs import SHARES, judge_of
from selfreward.plugins.evaluators.winner import WinnerConfig, WinnerEvaluator

if TYPE_CHECKING:
    import numpy as np

SCALE = 400 / math.log(10)
"""Points per unit of log-odds."""
PRIOR = 0.5
"""Wins that either side of every pair is given beforehand."""


@dataclass
class EloConfig(WinnerConfig):
    """How winners are found, and where the scale is fixed."""

    anchor: str | None = role(None)
    """The policy whose rating is base_rating, by its name; None = the first, M0. No ratings before it is made."""
    base_rating: float = 1000.0
    """The anchor's rating."""
    bootstrap: int = option(200, ge=40)
    """Draws behind an interval."""


class Elo(WinnerEvaluator):
    """Ratings of all policies; nothing where there is only one."""

    name = "elo"
    uses_policies = True
    config: EloConfig
    figures = (Figure("rating", better="higher"), *SHARES)
    plots = (Plot("Elo rating", "All models of the run on one scale", ("rating",)),)

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """``rating`` and ``win_rate`` of every policy, and of this model how well the verdicts could be read."""
        names, judge = list(context.policies), judge_of(context, self.config.judge_model)
        anchor = self.config.anchor or next(iter(names), None)
        if len(names) < 2 or anchor not in names or judge is None:
            return
        outcomes, more = self._outcomes(names, judge, context)
        if len(outcomes):
            yield from self._ratings(names, names.index(anchor), outcomes, context)
        yield from more

    def _outcomes(
        self, names: Sequence[str], judge: EvaluationContext, context: EvaluationContext
    ) -> tuple[np.ndarray, list[Metric]]:
        """What i got against j on each prompt (prompts x i x j, 0 where they did not meet), and how verdicts read."""
        import numpy as np

        contexts = [context if name == context.model else context.other(name) for name in names]
        known = [{group.prompt.prompt_id: group for group in of.answers} if of else {} for of in contexts]
        places = {group.prompt.prompt_id: place for place, group in enumerate(context.answers)}
        meetings = [
            (prompt, i, j)
            for prompt in places
            for i, j in itertools.combinations(range(len(names)), 2)
            if prompt in known[i] and prompt in known[j]
        ]
        pairs, more = self.decided([(known[i][p], known[j][p]) for p, i, j in meetings], judge, context)
        outcomes = np.zeros((len(places), len(names), len(names)))
        for (prompt, i, j), pair in zip(meetings, pairs, strict=True):
            if pair.preference is not None:
                outcomes[places[prompt], i, j] = pair.preference
                outcomes[places[prompt], j, i] = 1 - pair.preference
        return outcomes, more

    def _ratings(
        self, names: Sequence[str], anchor: int, outcomes: np.ndarray, context: EvaluationContext
    ) -> Iterator[Metric]:
        import numpy as np

        wins, base = outcomes.sum(axis=0), self.config.base_rating
        drawn = draws(outcomes, self.config.bootstrap, context.seed("bootstrap"))
        rating = base + relative_ratings(wins + PRIOR, anchor)
        ratings = base + np.array([relative_ratings(each, anchor) for each in drawn])
        shares = drawn.sum(axis=2) / (drawn + drawn.transpose(0, 2, 1)).sum(axis=2)
        for k, name in enumerate(names):
            met = round(float((wins + wins.T)[k].sum()))
            share = wins[k].sum() / max(1, met)  # as it was: the half wins are there to make ratings finite
            for metric, value, spread in (("rating", rating[k], ratings[:, k]), ("win_rate", share, shares[:, k])):
                low, high = np.quantile(spread, [0.025, 0.975])
                figures = (float(value), float(low), float(high)) if met > 1 else (None, None, None)
                yield Metric(name, self.name, metric, *figures, met)


def draws(outcomes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Wins as they might have been (n x i x j), from outcomes (prompts x i x j), half wins included."""
    import numpy as np

    generator = np.random.default_rng(seed)
    weights = generator.standard_exponential((n, len(outcomes)))
    before = generator.standard_gamma(PRIOR, (n, *outcomes.shape[1:])) * ~np.eye(outcomes.shape[1], dtype=bool)
    return np.tensordot(weights, outcomes, axes=1) + before


def relative_ratings(wins: np.ndarray, anchor: int) -> np.ndarray:
    """Ratings less that of the anchor, most probable under the wins of i over j (policies x policies).

    Every policy has won and lost something, or it has none.
    """
    import evalica
    import numpy as np

    i, j = (each.tolist() for each in np.nonzero(~np.eye(len(wins), dtype=bool)))
    won = [evalica.Winner.X] * len(i)
    found = evalica.bradley_terry(i, j, won, weights=wins[i, j].tolist(), tolerance=1e-10, limit=100_000)
    logs = np.log(found.scores.sort_index().to_numpy())
    return np.asarray(SCALE * (logs - logs[anchor]))
