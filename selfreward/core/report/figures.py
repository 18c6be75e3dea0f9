"""The figures' table: models across, figures down, each with its 95 % interval."""

from __future__ import annotations

from typing import Any

from selfreward.core.contracts.evaluation import Figure
from selfreward.core.report.run_folder import RunFolder
from selfreward.core.run.figures import figure_source, in_order


def figure_groups(run: RunFolder) -> list[dict[str, Any]]:
    """One group an evaluator, one row a figure, one cell a model: value, interval, number of items."""
    groups = []
    for evaluator in in_order(metric["evaluator"] for metric in run.metrics):
        own = {(m["metric"], m["model"]): m for m in run.metrics if m["evaluator"] == evaluator}
        models = [model for model in run.models if any(model == of for _, of in own)]
        source = figure_source(evaluator)
        figures = [source.figure(metric) for metric in dict.fromkeys(metric for metric, _ in own)]
        rows = [
            {"label": figure.words, "cells": [_cell(own.get((figure.metric, model)), figure) for model in models]}
            for figure in figures
        ]
        groups.append({"title": source.title or evaluator.replace("_", " "), "models": models, "rows": rows})
    return groups


def number(value: float, figure: Figure) -> str:
    """A value with as many digits as it deserves."""
    if figure.share:
        return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00
    return text.replace("-", "−")


def _cell(metric: dict[str, Any] | None, figure: Figure) -> dict[str, str]:
    if metric is None or metric["value"] is None:
        return {"value": "–" if metric else "", "interval": "", "n": ""}
    bounds = [metric["low"], metric["high"]]
    interval = "" if None in bounds else "–".join(number(bound, figure).removesuffix("%") for bound in bounds)
    return {"value": number(metric["value"], figure), "interval": interval, "n": f"{metric['n']:,}"}
