"""What a round says of itself as metrics, and the table of all metrics at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.table import Table

from selfreward.core.contracts.evaluation import Figure, Metric
from selfreward.core.run.figures import OWN, figure_source, has_rows, in_order
from selfreward.core.run.progress import Screen


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
    own = {f"training_{n}": v for n, v in training.items() if n not in ("training_rows", "seconds", "rows")}
    return [
        *(Metric(model, "loop", name, float(value), None, None, int(n)) for name, value, n in rows),
        *(Metric(model, "training", name, float(value), None, None, int(trained)) for name, value in own.items()),
    ]


def print_summary(screen: Screen, metrics: Iterable[Metric]) -> None:
    """One column a model, in the order they were made; rows for which there are no figures are left out."""
    metrics = list(metrics)
    models = list(dict.fromkeys(metric.model for metric in metrics))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right", style="bold")
    for evaluator in in_order(m.evaluator for m in metrics):
        own = {(m.model, m.metric): m for m in metrics if m.evaluator == evaluator}
        for title, texts in _rows(evaluator, models, own):
            if any(texts):
                table.add_row(title, *texts)
    if table.row_count:
        screen.console.print()
        screen.console.print(table)


def _rows(
    evaluator: str, models: Sequence[str], metrics: Mapping[tuple[str, str], Metric]
) -> Iterator[tuple[str, list[str]]]:
    """The rows that an evaluator declares, or one of each of its metrics."""
    rows: dict[str, list[Figure]] = {}
    for figure in figure_source(evaluator).figures:
        rows.setdefault(figure.row, []).append(figure)
    for row, figures in rows.items():
        if row:
            yield row, [_cell(figures, [metrics.get((model, figure.metric)) for figure in figures]) for model in models]
    if evaluator not in OWN and not has_rows(evaluator):
        for metric in dict.fromkeys(metric for _, metric in metrics):
            texts = [_with_interval(metrics.get((model, metric))) for model in models]
            yield f"{evaluator}: {metric.replace('_', ' ')}", texts


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


def _cell(figures: Sequence[Figure], metrics: Sequence[Metric | None]) -> str:
    values = [metric.value if metric else None for metric in metrics]
    if all(value is None for value in values):
        return ""
    pairs = zip(figures, values, strict=True)
    return "/".join("-" if value is None else figure.written(value) for figure, value in pairs)
