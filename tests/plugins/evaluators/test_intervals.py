"""Intervals against scipy, and at the edges."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from selfreward.plugins.evaluators.intervals import mean_interval, share_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (500, 999)])
def test_shares_are_wilsons(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert share_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-4)  # 1.96 for 1.959964


def test_means_are_normal() -> None:
    rng = random.Random(0)
    values = [rng.gauss(3, 1) for _ in range(200)]
    expected = stats.norm.interval(0.95, sum(values) / 200, stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, abs=1e-4)
    assert mean_interval([1.0]) == mean_interval([]) == (None, None)
