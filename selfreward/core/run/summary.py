"""The run's figures as tidy records, and as the table at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from selfreward.core.contracts.stages import Metric
from selfreward.core.run.progress import Screen

ROWS = {
    "true score (0-5)": [("oracle", "true_score", "{:.2f}")],
    "fully correct": [("oracle", "fully_correct", "{:.2f}")],
    "fluent": [("oracle", "fluent", "{:.2f}")],
    "win/tie/lose": [("head_to_head", name, "{:.0%}") for name in ("win", "tie", "lose")],
    "win rate at equal length": [("head_to_head", "lc_win_rate", "{:.0%}")],
    "judge: pairwise accuracy": [("judge_agreement", "pairwise_accuracy", "{:.2f}")],
    "judge: spearman": [("judge_agreement", "spearman", "{:.2f}")],
    "judge: verdicts readable": [("judge_agreement", "parse_rate", "{:.1%}")],
    "trained on, rows": [("loop", "training_rows", "{:,.0f}")],
    "rows per prompt": [("loop", "pair_yield", "{:.0%}")],
    "answer length, characters": [("loop", "response_length", "{:.0f}")],
    "seconds of its round": [("loop", "seconds", "{:.1f}")],
    "engine busy while generating": [("loop", "engine_busy", "{:.0%}")],
}
"""Row of the table -> (evaluator, metric, format) of what is shown in it."""


def round_metrics(
    model: str, figures: Mapping[str, Mapping[str, float]], seconds: float, busy: float | None = None
) -> list[Metric]:
    """The figures of the round that made a model (evaluator ``loop``), and of its training (``training``).

    ``n`` is the number of items behind each.
    """
    prompts, training = figures["prompts"], figures["model"]
    # an online optimizer has made and judged the answers itself
    candidates = figures.get("candidates") or {
        "cut_off": training.get("cut_off", 0),
        "rows": training.get("answers", 0),
    }
    verdicts = figures.get("judgements") or {n: training.get(n, 0) for n in ("votes", "unreadable")}
    trained = training["training_rows"]
    new = prompts.get("written", 0) - prompts.get("dropped: duplicate", 0)
    shares = {
        "pair_yield": (figures["training_set"]["rows"], prompts["rows"]),
        "judge_parse_rate": (verdicts["votes"] - verdicts["unreadable"], verdicts["votes"]),
        "cut_off": (candidates["cut_off"], candidates["rows"]),
        "prompts_novel": (new, prompts["tried"] if "written" in prompts else 0),
        "prompts_valid": (prompts.get("valid", 0), prompts.get("written", 0)),
    }
    rows = [
        ("prompts", prompts["rows"], prompts["tried"]),
        ("training_rows", trained, trained),
        ("seconds", seconds, 1),
    ]
    rows += [(name, part / whole, whole) for name, (part, whole) in shares.items() if whole]
    rows += [("engine_busy", busy, 1)] if busy is not None else []
    told = {f"training_{n}": v for n, v in training.items() if n not in ("training_rows", "seconds", "rows")}
    return [
        *(Metric(model, "loop", name, float(value), None, None, int(n)) for name, value, n in rows),
        *(Metric(model, "training", name, float(value), None, None, int(trained)) for name, value in told.items()),
    ]


def print_summary(screen: Screen, metrics: Iterable[Metric]) -> None:
    """One column a model, in the order they were made; rows for which there are no figures are left out."""
    metrics = list(metrics)
    cells = {(m.model, m.evaluator, m.metric): m.value for m in metrics}
    models = list(dict.fromkeys(model for model, _, _ in cells))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right", style="bold")
    for title, parts in ROWS.items():
        texts = [_cell(model, parts, cells) for model in models]
        if any(texts):
            table.add_row(title, *texts)
    known = {"training"} | {evaluator for parts in ROWS.values() for evaluator, _, _ in parts}
    others = {(m.model, m.evaluator, m.metric): m for m in metrics if m.evaluator not in known}
    for evaluator, metric in dict.fromkeys((evaluator, metric) for _, evaluator, metric in others):
        texts = [_with_interval(others.get((model, evaluator, metric))) for model in models]
        table.add_row(f"{evaluator}: {metric.replace('_', ' ')}", *texts)
    if table.row_count:
        screen.console.print()
        screen.console.print(table)


def _with_interval(metric: Metric | None) -> str:
    """``.633 (.568-.694) n=221``; what stands on too few items says so."""
    if metric is None:
        return ""
    if metric.value is None:
        return f"too few items, n={metric.n}"
    bounds = "" if metric.low is None or metric.high is None else f" ({_short(metric.low)}-{_short(metric.high)})"
    return f"{_short(metric.value)}{bounds} n={metric.n}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(model: str, parts: list[tuple[str, str, str]], cells: Mapping[tuple[str, str, str], float | None]) -> str:
    values = [cells.get((model, evaluator, metric)) for evaluator, metric, _ in parts]
    if all(value is None for value in values):
        return ""
    return "/".join(form.format(v) if v is not None else "-" for v, (_, _, form) in zip(values, parts, strict=True))
