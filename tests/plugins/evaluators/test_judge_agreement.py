"""Agreement of judge and humans: hand-worked cases, scipy as the independent reference, honest failures."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from selfreward import Metric
from selfreward.core.contracts.options import option_docs, range_problems
from selfreward.plugins.evaluators.judge_agreement import NAMES, JudgeAgreement, JudgeAgreementConfig

Groups = list[tuple[list[int], list[Any]]]


@pytest.fixture
def measure(group: Callable[..., Any], context: Callable[..., Any]) -> Callable[..., dict[str, Metric]]:
    """Evaluate on (human ranks, judge's scores) of each prompt."""

    def run(cases: Groups, n: int | None = None, seed: int = 0) -> dict[str, Metric]:
        scores = {f"{p}.{k}": s for p, (_, planned) in enumerate(cases) for k, s in enumerate(planned)}
        groups = [
            group(f"{p}?", *(f"{p}.{k}" for k in range(len(ranks))), ranks=ranks) for p, (ranks, _) in enumerate(cases)
        ]
        asked = context(splits={"judge_evaluation": groups}, scores=scores, run_seed=seed)
        return {m.metric: m for m in JudgeAgreement(JudgeAgreementConfig(n)).evaluate(asked)}

    return run


def values(metrics: dict[str, Metric]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in metrics.items()}


def random_cases(seed: int, prompts: int = 60) -> Groups:
    rng = random.Random(seed)
    cases = []
    for _ in range(prompts):
        k = rng.randint(2, 6)
        ranks = rng.sample(range(k), k) if rng.random() < 0.5 else [rng.randint(0, 2) for _ in range(k)]
        cases.append((ranks, [float(rng.randint(0, 5)) for _ in range(k)]))
    return cases


def test_a_perfect_judge_and_its_opposite(measure: Callable[..., dict[str, Metric]]) -> None:
    perfect = measure([([0, 1, 2], [5, 3, 1]), ([2, 0, 1], [0, 5, 4])])
    assert values(perfect) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert {name: m.n for name, m in perfect.items()} == dict(zip(NAMES, [6, 2, 2, 2, 2, 6], strict=True))
    opposite = values(measure([([0, 1, 2], [1, 3, 5]), ([2, 0, 1], [5, 0, 4])]))
    assert opposite == pytest.approx(dict(zip(NAMES, [0, 0, 0, -1, -1, 1], strict=True)))


def test_a_judge_that_says_five_to_everything_earns_nothing(measure: Callable[..., dict[str, Metric]]) -> None:
    found = values(measure([([0, 1], [5, 5]), ([1, 0, 2], [5, 5, 5])]))
    assert (found["pairwise_accuracy"], found["exact_match"], found["spearman"], found["kendall_tau"]) == (0, 0, 0, 0)
    assert found["five_best"] == pytest.approx(2 / 5)


def test_pairs_on_which_the_humans_tie_are_left_out(measure: Callable[..., dict[str, Metric]]) -> None:
    found = measure([([0, 0, 1], [5, 4, 4]), ([1, 0], [0, 1])])
    # prompt 1: 0-1 is a human tie; 0-2 is right; 1-2 is a judged tie and wrong. prompt 2: right
    assert (found["pairwise_accuracy"].value, found["pairwise_accuracy"].n) == (pytest.approx(2 / 3), 3)
    assert (found["exact_match"].value, found["exact_match"].n) == (0.5, 2)
    same = measure([([0, 0, 1], [4, 4, 2]), ([1, 0], [0, 1])])
    assert same["exact_match"].value == 1  # ties at the same place are the same order


def test_prompts_on_which_the_humans_tie_throughout(measure: Callable[..., dict[str, Metric]]) -> None:
    found = measure([([0, 0], [5, 1]), ([0, 1], [5, 1]), ([0, 1], [5, 1])])
    assert found["spearman"].n == found["kendall_tau"].n == found["pairwise_accuracy"].n == 2
    assert found["spearman"].value == 1
    assert found["exact_match"].value == pytest.approx(2 / 3)


def test_an_unreadable_judge_gains_nothing(measure: Callable[..., dict[str, Metric]]) -> None:
    # the unscored answer is the humans' worst: as a number below all others it would make a perfect ranking
    found = measure([([0, 1, 2], [5, 3, None]), ([0, 1], [None, None])])
    assert (found["pairwise_accuracy"].value, found["pairwise_accuracy"].n) == (1 / 4, 4)
    assert found["exact_match"].value == 0
    assert found["spearman"].value == found["kendall_tau"].value == pytest.approx(0.5)  # 1, and 0 for a constant
    assert (found["parse_rate"].value, found["parse_rate"].n) == (0.4, 5)
    assert found["five_best"].n == 1
    assert found["five_best"].value is None


def test_parse_rate_counts_verdicts(measure: Callable[..., dict[str, Metric]]) -> None:
    found = measure([([0, 1], [[5, None, 5], [None, 2, None]]), ([0, 1], [[4, 4, 5], [1, 1, 1]])])
    assert (found["parse_rate"].value, found["parse_rate"].n) == (9 / 12, 12)
    assert found["five_best"].n == 1  # a mean of votes below the highest score is no five


def test_nothing_to_measure_is_none(measure: Callable[..., dict[str, Metric]], group: Any, context: Any) -> None:
    empty = measure([])
    assert list(empty) == list(NAMES)
    assert {(m.value, m.low, m.high, m.n) for m in empty.values()} == {(None, None, None, 0)}
    lone = measure([([0, 1, 2], [5, 3, 1])])
    assert lone["pairwise_accuracy"].value == 1
    assert lone["pairwise_accuracy"].low is None
    assert lone["exact_match"].value is lone["spearman"].value is lone["five_best"].value is None
    unranked = context(splits={"judge_evaluation": [group("q", "a", "b", ranks=[0, None])]}, scores={})
    assert all(m.value is None for m in JudgeAgreement(JudgeAgreementConfig()).evaluate(unranked))
    assert unranked.judged == 0


def test_unranked_answers_are_not_judged(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    groups = [group(q, "a", "b", "c", ranks=[1, None, 0]) for q in ("x", "y")]
    asked = context(splits={"judge_evaluation": groups}, scores={"a": 1, "c": 5})
    metrics = {m.metric: m for m in JudgeAgreement(JudgeAgreementConfig()).evaluate(asked)}
    assert asked.judged == 4
    assert metrics["pairwise_accuracy"].value == 1


def test_a_judge_without_a_rubric_has_no_highest_score(group: Callable[..., Any], context: Callable[..., Any]) -> None:
    groups = [group(q, "a", "b", ranks=[0, 1]) for q in ("x", "y")]
    asked = context(splits={"judge_evaluation": groups}, scores={"a": 900, "b": 5}, rubric_name="-")
    metrics = {m.metric: m for m in JudgeAgreement(JudgeAgreementConfig()).evaluate(asked)}
    assert (metrics["five_best"].value, metrics["five_best"].n, metrics["pairwise_accuracy"].value) == (None, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scipy_and_to_counting(seed: int, measure: Callable[..., dict[str, Metric]]) -> None:
    cases = random_cases(seed)
    found = measure(cases)
    differ = [(ranks, scores) for ranks, scores in cases if len(set(ranks)) > 1]
    for name, reference in (("spearman", stats.spearmanr), ("kendall_tau", stats.kendalltau)):
        constant_is_zero = [reference([-r for r in h], s).statistic if len(set(s)) > 1 else 0.0 for h, s in differ]
        assert found[name].value == pytest.approx(np.mean(constant_is_zero))
        assert found[name].n == len(differ)
    pairs = [(h[i] - h[j], s[j] - s[i]) for h, s in cases for i, j in combinations(range(len(h)), 2) if h[i] != h[j]]
    assert found["pairwise_accuracy"].value == pytest.approx(sum(a * b > 0 for a, b in pairs) / len(pairs))
    fives = [h[i] == min(h) for h, s in cases for i in range(len(h)) if s[i] == 5]
    assert found["five_best"].value == pytest.approx(np.mean(fives))
    assert found["five_best"].n == len(fives)
    exact = [np.array_equal(stats.rankdata(h), stats.rankdata([-x for x in s])) for h, s in cases]
    assert found["exact_match"].value == pytest.approx(np.mean(exact))


def test_intervals_are_the_bootstraps(measure: Callable[..., dict[str, Metric]]) -> None:
    cases = random_cases(3, prompts=120)
    found = measure(cases)
    totals = [
        [(s[j] - s[i]) * (h[i] - h[j]) > 0 for i, j in combinations(range(len(h)), 2) if h[i] != h[j]] for h, s in cases
    ]
    right, weight = np.array([sum(t) for t in totals]), np.array([len(t) for t in totals])
    reference = stats.bootstrap(
        (right, weight), lambda r, w, axis: r.sum(axis) / w.sum(axis), paired=True, method="percentile", rng=0
    ).confidence_interval
    accuracy = found["pairwise_accuracy"]
    assert (accuracy.low, accuracy.high) == pytest.approx((reference.low, reference.high), abs=0.012)
    assert all(m.low <= m.value <= m.high for m in found.values())
    assert measure(cases) == found
    assert measure(cases, seed=1) != found
    assert values(measure(cases, seed=1)) == values(found)


def test_n_judges_the_first_prompts_only(measure: Callable[..., dict[str, Metric]]) -> None:
    cases = random_cases(1)
    assert values(measure(cases, n=10)) == values(measure(cases[:10]))
    assert list(range_problems(JudgeAgreementConfig(n=1), "x"))
    assert option_docs(JudgeAgreementConfig)["n"]


def test_a_thousand_resamples_take_well_under_a_second(measure: Callable[..., dict[str, Metric]]) -> None:
    cases = random_cases(0, prompts=600)
    began = time.process_time()
    measure(cases)
    assert time.process_time() - began < 1
