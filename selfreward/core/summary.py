"""The run's figures as tidy records, and as the table at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from selfreward.core.progress import Screen
from selfreward.core.stages import Metric

COLUMNS = {
    "true score": [("oracle", "true_score", "{:.2f}")],
    "fully correct": [("oracle", "fully_correct", "{:.2f}")],
    "fluent": [("oracle", "fluent", "{:.2f}")],
    "win/tie/lose": [("head_to_head", name, "{:.0%}") for name in ("win", "tie", "lose")],
    "judge pairwise": [("judge_agreement", "pairwise_accuracy", "{:.2f}")],
    "spearman": [("judge_agreement", "spearman", "{:.2f}")],
    "parse rate": [("judge_agreement", "parse_rate", "{:.1%}")],
    "trained on": [("loop", "training_rows", "{:,.0f}")],
    "pair yield": [("loop", "pair_yield", "{:.0%}")],
    "length": [("loop", "response_length", "{:.0f}")],
    "seconds": [("loop", "seconds", "{:.1f}")],
}
"""Column -> (evaluator, metric, format) of what is shown in it."""


def round_metrics(model: str, figures: Mapping[str, Mapping[str, float]], seconds: float) -> list[Metric]:
    """The figures of the round that made a model (evaluator ``loop``); ``n`` is the number of items behind each."""
    prompts, candidates, verdicts = figures["prompts"], figures["candidates"], figures["judgements"]
    trained = figures["model"]["training_rows"]
    new = prompts["parsed"] - prompts.get("dropped: duplicate", 0)
    shares = {
        "pair_yield": (figures["training_set"]["rows"], prompts["rows"]),
        "judge_parse_rate": (verdicts["votes"] - verdicts["unreadable"], verdicts["votes"]),
        "cut_off": (candidates["cut_off"], candidates["rows"]),
        "prompts_novel": (new, prompts["tried"]),
        "prompts_valid": (prompts.get("valid", 0), prompts["parsed"] if "valid" in prompts else 0),
    }
    rows = [
        ("prompts", prompts["rows"], prompts["tried"]),
        ("training_rows", trained, trained),
        ("seconds", seconds, 1),
    ]
    rows += [(name, part / whole, whole) for name, (part, whole) in shares.items() if whole]
    return [Metric(model, "loop", name, float(value), None, None, int(n)) for name, value, n in rows]


def print_summary(screen: Screen, metrics: Iterable[Metric]) -> None:
    """One line a model, in the order they were made; columns for which there are no figures are left out."""
    cells = {(m.model, m.evaluator, m.metric): m.value for m in metrics}
    models = list(dict.fromkeys(model for model, _, _ in cells))
    shown = {
        title: parts for title, parts in COLUMNS.items() if any((m, *p[:2]) in cells for m in models for p in parts)
    }
    table = Table(
        title="the models, by the held-out prompts", title_justify="left", box=None, pad_edge=False, padding=(0, 2)
    )
    table.add_column("model", style="bold")
    for title in shown:
        table.add_column(title, justify="right")
    for model in models:
        table.add_row(model, *(_cell(model, parts, cells) for parts in shown.values()))
    screen.console.print()
    screen.console.print(table)


def _cell(model: str, parts: list[tuple[str, str, str]], cells: Mapping[tuple[str, str, str], float | None]) -> str:
    values = [cells.get((model, evaluator, metric)) for evaluator, metric, _ in parts]
    if all(value is None for value in values):
        return ""
    return "/".join(form.format(v) if v is not None else "-" for v, (_, _, form) in zip(values, parts, strict=True))
