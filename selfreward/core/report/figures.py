"""The figures' table: models across, figures down, each with its 95 % interval."""

from __future__ import annotations

from typing import Any

from selfreward.core.report.run_folder import RunFolder

GROUPS = {
    "oracle": "Ground truth",
    "head_to_head": "Against the model before",
    "judge_agreement": "As a judge",
    "loop": "The round that made it",
    "training": "How it was trained",
}
"""Evaluator -> heading, in this order; others follow under their own names."""

LABELS = {
    ("oracle", "true_score"): "True score (0–5)",
    ("oracle", "fully_correct"): "Fully correct",
    ("oracle", "fluent"): "Fluent",
    ("judge_agreement", "pairwise_accuracy"): "Pairwise accuracy",
    ("judge_agreement", "five_best"): "Given 5, and is best",
    ("judge_agreement", "exact_match"): "Whole order right",
    ("judge_agreement", "spearman"): "Spearman's ρ",
    ("judge_agreement", "kendall_tau"): "Kendall's τ",
    ("judge_agreement", "parse_rate"): "Verdicts readable",
    ("loop", "judge_parse_rate"): "Verdicts readable",
    ("loop", "pair_yield"): "Training rows per prompt",
    ("loop", "cut_off"): "Answers cut off",
    ("loop", "response_length"): "Answer length, characters",
    ("loop", "seconds"): "Seconds",
}
SHARES = {"fully_correct", "fluent", "win", "tie", "lose", "pairwise_accuracy", "five_best", "exact_match",
          "parse_rate", "judge_parse_rate", "pair_yield", "cut_off", "prompts_novel", "prompts_valid"}  # fmt: skip
"""Figures that are parts of a whole, shown in percent."""
SHARE_ENDINGS = ("win_rate", "_win", "_tie", "_lose", "_parse_rate", "_orders_agree", "engine_busy")


def figure_groups(run: RunFolder) -> list[dict[str, Any]]:
    """One group an evaluator, one row a figure, one cell a model: value, interval, number of items."""
    cells = {(m["evaluator"], m["metric"], m["model"]): m for m in run.metrics}
    figures = list(dict.fromkeys((m["evaluator"], m["metric"]) for m in run.metrics))
    order = list(dict.fromkeys([*GROUPS, *(evaluator for evaluator, _ in figures)]))
    groups = []
    for evaluator in order:
        names = [name for found, name in figures if found == evaluator]
        models = [model for model in run.models if any((evaluator, name, model) in cells for name in names)]
        rows = [
            {"label": label(evaluator, name), "cells": [_cell(cells.get((evaluator, name, m)), name) for m in models]}
            for name in names
        ]
        if rows:
            groups.append({"title": GROUPS.get(evaluator, evaluator.replace("_", " ")), "models": models, "rows": rows})
    return groups


def label(evaluator: str, metric: str) -> str:
    """A figure's name for people."""
    plain = metric.removeprefix("training_" if evaluator == "training" else "").replace("_", " ")
    return LABELS.get((evaluator, metric), plain[:1].upper() + plain[1:])


def number(value: float, metric: str) -> str:
    """A value with as many digits as it deserves."""
    if metric in SHARES or metric.endswith(SHARE_ENDINGS):
        return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00
    return text.replace("-", "−")


def _cell(metric: dict[str, Any] | None, name: str) -> dict[str, str]:
    if metric is None or metric["value"] is None:
        return {"value": "–" if metric else "", "interval": "", "n": ""}
    bounds = [metric["low"], metric["high"]]
    interval = "" if None in bounds else "–".join(number(bound, name).removesuffix("%") for bound in bounds)
    return {"value": number(metric["value"], name), "interval": interval, "n": f"{metric['n']:,}"}
