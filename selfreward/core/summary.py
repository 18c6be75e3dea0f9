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
    prompts, candidates = figures["prompts"], figures["candidates"]
    judgements, training = figures["judgements"], figures["training_set"]
    rows = [
        ("prompts", prompts["rows"], prompts.get("tried", 0)),
        ("training_rows", figures["model"]["training_rows"], figures["model"]["training_rows"]),
        ("pair_yield", _share(training["rows"], prompts["rows"]), prompts["rows"]),
        ("seconds", seconds, 1),
        (
            "judge_parse_rate",
            _share(judgements["votes"] - judgements["unreadable"], judgements["votes"]),
            judgements["votes"],
        )
        if judgements.get("votes")
        else None,
        ("cut_off", _share(candidates.get("cut_off", 0), candidates["rows"]), candidates["rows"]),
        ("prompts_valid", _share(prompts["valid"], prompts["parsed"]), prompts["parsed"])
        if "valid" in prompts
        else None,
        (
            "prompts_novel",
            _share(prompts["parsed"] - prompts.get("dropped: duplicate", 0), prompts["tried"]),
            prompts["tried"],
        ),
    ]
    return [Metric(model, "loop", name, value, None, None, int(n)) for name, value, n in filter(None, rows)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


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
