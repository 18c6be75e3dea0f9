"""Ratings: recovered from games of known strength, equal to an independent fit, finite and honest at the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import beta

from selfreward import Metric
from selfreward.core.contracts.options import cross_problems, option_docs, range_problems
from selfreward.plugins.evaluators.elo import PRIOR, SCALE, Elo, EloConfig, draws, relative_ratings
from selfreward.plugins.evaluators.winner import By

TRUTH = np.array([1000.0, 1060.0, 1180.0, 1120.0])


def played(truth: np.ndarray, prompts: int, generator: np.random.Generator) -> np.ndarray:
    """Outcomes (prompts x i x j) of every pair on every prompt, by Elo's formula."""
    k = len(truth)
    outcomes = np.zeros((prompts, k, k))
    for i in range(k):
        for j in range(i):
            won = generator.random(prompts) < 1 / (1 + 10 ** (-(truth[i] - truth[j]) / 400))
            outcomes[:, i, j], outcomes[:, j, i] = won, ~won
    return outcomes


def by_scipy(wins: np.ndarray) -> np.ndarray:
    """Ratings less that of the first, by another optimiser on the likelihood."""

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        strengths = np.concatenate([[0.0], free])
        gaps = strengths[:, None] - strengths
        surprise = wins * expit(-gaps)
        return -float((wins * log_expit(gaps)).sum()), (surprise.sum(axis=0) - surprise.sum(axis=1))[1:]

    found = minimize(loss, np.zeros(len(wins) - 1), jac=True, method="BFGS", options={"gtol": 1e-10})
    return SCALE * np.concatenate([[0.0], found.x])


@pytest.fixture
def measured(group: Callable[..., Any], context: Callable[..., Any]) -> Callable[..., dict[tuple[str, str], Metric]]:
    """``measured(config, M0="135", M1="2x4")``: figures by (model, metric), of true scores per prompt; x = no truth."""

    def run(config: EloConfig | None = None, **scores: str | Sequence[float]) -> dict[tuple[str, str], Metric]:
        truths, made = {}, {}
        for name, row in scores.items():
            texts = [f"{name} {k} says {score}" for k, score in enumerate(row)]
            truths |= {
                t: {"true_score": float(score)} for t, score in zip(texts, row, strict=True) if score not in ("x", None)
            }
            made[name] = [group(f"{k}?", text) for k, text in enumerate(texts)]
        names = list(scores)
        others = {name: context(model=name, truths=truths, answers=made[name]) for name in names[:-1]}
        ran = context(model=names[-1], truths=truths, answers=made[names[-1]], others=others, policies=names)
        found = list(Elo(config or EloConfig()).evaluate(ran))
        assert {m.evaluator for m in found} <= {"elo"}
        assert not ran.judged
        assert len({(m.model, m.metric) for m in found}) == len(found)
        return {(m.model, m.metric): m for m in found}

    return run


# ------------------------------------------------------------------------------------------------------------- numerics


@pytest.mark.parametrize(("k", "spread"), [(2, 50), (4, 150), (6, 400), (6, 1500)])
def test_the_fit_is_that_of_another_optimiser(k: int, spread: float) -> None:
    generator = np.random.default_rng(k)
    wins = played(generator.normal(0, spread, k), 200, generator).sum(axis=0) + PRIOR
    np.fill_diagonal(wins, 0)
    assert relative_ratings(wins, 0) == pytest.approx(by_scipy(wins), abs=1e-3)


def test_a_difference_of_400_points_is_ten_wins_to_one() -> None:
    assert relative_ratings(np.array([[0.0, 10], [1, 0]]), 1) == pytest.approx([400, 0])
    assert relative_ratings(np.array([[0.0, 10], [1, 0]]), 0) == pytest.approx([0, -400])


def test_ratings_are_recovered_from_games() -> None:
    wins = played(TRUTH, 20_000, np.random.default_rng(0)).sum(axis=0)
    assert relative_ratings(wins + PRIOR, 0) == pytest.approx(TRUTH - TRUTH[0], abs=6)


def test_the_order_of_the_policies_does_not_matter() -> None:
    wins = played(TRUTH, 50, np.random.default_rng(1)).sum(axis=0) + PRIOR
    order = [2, 0, 3, 1]
    mixed = relative_ratings(wins[np.ix_(order, order)], order.index(0))
    assert mixed == pytest.approx(relative_ratings(wins, 0)[order], abs=1e-5)


def test_intervals_cover_the_truth() -> None:
    generator, inside = np.random.default_rng(3), []
    for game in range(40):
        drawn = draws(played(TRUTH, 80, generator), 100, game)
        low, high = np.quantile([relative_ratings(each, 0) for each in drawn], [0.025, 0.975], axis=0)
        inside += [(low[1:] <= (TRUTH - 1000)[1:]) & ((TRUTH - 1000)[1:] <= high[1:])]
    assert 0.88 <= np.mean(inside) <= 0.995  # of 120 intervals that share games three by three


@pytest.mark.parametrize(("won", "n"), [(30, 50), (50, 50), (0, 12)])
def test_without_ties_two_policies_have_jeffreys_interval(won: int, n: int) -> None:
    outcomes = np.zeros((n, 2, 2))
    outcomes[:won, 1, 0], outcomes[won:, 0, 1] = 1, 1
    drawn = draws(outcomes, 20_000, 0)
    share = drawn[:, 1, 0] / (drawn[:, 1, 0] + drawn[:, 0, 1])
    wanted = beta.ppf([0.025, 0.5, 0.975], won + 0.5, n - won + 0.5)
    assert np.quantile(share, [0.025, 0.5, 0.975]) == pytest.approx(wanted, abs=0.01)


# --------------------------------------------------------------------------------------------------------- the figures


def test_ties_are_half_a_win(measured: Callable[..., Any]) -> None:
    mixed = measured(M0="1111", M1="1102")  # two ties, one lost, one won
    for name in ("M0", "M1"):
        assert mixed[name, "rating"].value == pytest.approx(1000)
        assert (mixed[name, "win_rate"].value, mixed[name, "win_rate"].n) == (0.5, 4)
    half = measured(M0="1111", M1="1112")
    assert half["M1", "win_rate"].value == 2.5 / 4
    assert half["M1", "rating"].value == pytest.approx(1000 + SCALE * np.log((2.5 + 0.5) / (1.5 + 0.5)))


def test_every_policy_is_rated_and_the_first_is_the_anchor(measured: Callable[..., Any]) -> None:
    found = measured(M0=[1, 2, 3, 4] * 10, M1=[2, 3, 1, 4] * 10, M2=[3, 1, 4, 5] * 10)
    assert list(found) == [(name, metric) for name in ("M0", "M1", "M2") for metric in ("rating", "win_rate")]
    assert all(found[key].n == 80 for key in found)
    base = found["M0", "rating"]
    assert (base.value, base.low, base.high) == (1000, 1000, 1000)
    for name in ("M1", "M2"):
        rating, share = found[name, "rating"], found[name, "win_rate"]
        assert rating.low < rating.value < rating.high
        assert 0 < share.low < share.value < share.high < 1
    assert found["M2", "rating"].value > found["M1", "rating"].value > 1000
    assert sum(found[name, "win_rate"].value for name in ("M0", "M1", "M2")) == pytest.approx(1.5)


def test_the_anchor_is_an_option_and_differences_stay(measured: Callable[..., Any]) -> None:
    scores = {"M0": [1, 2, 3, 4] * 5, "M1": [2, 3, 1, 4] * 5, "M2": [3, 1, 4, 5] * 5}
    first, second = measured(**scores), measured(EloConfig(anchor="M1", base_rating=1500), **scores)
    assert (second["M1", "rating"].value, second["M1", "rating"].low) == (1500, 1500)
    moved = second["M2", "rating"].value - second["M0", "rating"].value
    assert moved == pytest.approx(first["M2", "rating"].value - 1000)
    assert measured(EloConfig(anchor="M3"), **scores) == {}, "it may yet be made"


def test_who_wins_everything_has_a_finite_rating_and_an_interval(measured: Callable[..., Any]) -> None:
    found = measured(M0=[1] * 100, M1=[2] * 100)["M1", "rating"]
    assert found.value == pytest.approx(1000 + SCALE * np.log(100.5 / 0.5))
    low, high = (1000 + SCALE * np.log(share / (1 - share)) for share in beta.ppf([0.025, 0.975], 100.5, 0.5))
    assert low - 100 < found.low < low + 100
    assert found.value < found.high < high + 1000


def test_intervals_narrow_with_prompts_and_are_the_same_for_a_seed(measured: Callable[..., Any]) -> None:
    few, many = (measured(M0=[1, 2, 3] * n, M1=[2, 3, 1] * n)["M1", "rating"] for n in (10, 160))
    assert 3 < (few.high - few.low) / (many.high - many.low) < 5.5  # the root of 16
    assert measured(M0=[1, 2, 3] * 10, M1=[2, 3, 1] * 10)["M1", "rating"] == few
    assert measured(EloConfig(bootstrap=41), M0=[1, 2, 3] * 10, M1=[2, 3, 1] * 10)["M1", "rating"] != few


def test_what_cannot_be_read_is_left_out(measured: Callable[..., Any]) -> None:
    found = measured(M0="1111x", M1="2x22x", M2="333xx")
    # M0-M1 three, M0-M2 three, M1-M2 two prompts
    assert [found[name, "rating"].n for name in ("M0", "M1", "M2")] == [6, 5, 5]
    assert found["M1", "win_rate"].value == 3 / 5
    lonely = measured(M0="11", M1="22", M2="x3")["M2", "rating"]
    assert lonely.n == 2
    nobody = measured(M0="11", M1="xx")
    assert {(m.value, m.low, m.n) for m in nobody.values()} == {(None, None, 0)}


def test_one_policy_is_not_rated(measured: Callable[..., Any]) -> None:
    assert measured(M0="123") == {}


def test_a_judge_rates_too(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    scores = {"a1": 1, "a2": 1, "b1": 5, "b2": None}
    first = context(model="M0", answers=[group("1?", "a1"), group("2?", "a2")])
    judge = context(model="big", scores=scores)
    answers = [group("1?", "b1"), group("2?", "b2"), group("3?", "alone")]
    ran = context(answers=answers, others={"M0": first, "judge": judge}, policies=["M0", "M1"])
    found = {(m.model, m.metric): m for m in Elo(EloConfig(judge_model="judge")).evaluate(ran)}
    assert (ran.judged, judge.judged) == (0, 4)
    assert found["M1", "rating"].n == 1
    assert found["M1", "rating"].value is None, "no figure stands on one comparison"
    assert found["M1", "elo_parse_rate"].value == 3 / 4
    ran.others = {"M0": first}
    assert list(Elo(EloConfig(judge_model="M7")).evaluate(ran)) == []


# ------------------------------------------------------------------------------------------------------ what is refused


def test_problems(context: Callable[..., Any]) -> None:
    assert Elo(EloConfig()).problems(context()) == []
    assert "elo: by=truth, but this data has no ground truth" in Elo(EloConfig(By.truth)).problems(context())[0]
    assert "scores one answer" in Elo(EloConfig(By.pair, rubric="additive")).problems(context())[0]
    assert [path.name for path in Elo(EloConfig(By.pair)).files(context())] == ["pairwise.yaml"]
    assert list(cross_problems(EloConfig(By.truth, judge_model="judge"), "elo"))
    assert list(range_problems(EloConfig(bootstrap=10), "elo"))
    assert all(option_docs(EloConfig)[name] for name in vars(EloConfig()))
