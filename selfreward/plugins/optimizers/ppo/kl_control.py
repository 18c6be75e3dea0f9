"""How strongly the policy is held to its reference while it trains.

``beta`` is the price of one nat of KL. Left alone it is constant; with a target it follows the KL that is seen,

    beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon)

after a batch of n answers whose log-ratios to the reference sum to KL nats an answer.
Source: arXiv:1909.08593 §2.2 (with K_beta = 1 / horizon, and the constants of its code: target 6, horizon 10,000).
"""

from __future__ import annotations

MOST = 0.2
"""Largest relative error that is answered to at once."""


def next_beta(beta: float, kl: float, answers: int, target: float | None, horizon: float) -> float:
    """The coefficient for the next batch; the same one where there is no target."""
    if target is None:
        return beta
    error = min(MOST, max(-MOST, kl / target - 1))
    return beta * (1 + error * answers / horizon)
