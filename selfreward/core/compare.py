"""``selfreward compare RUNS...``: what differed x model x figure, mean ± 95 % interval over seeds.

Runs whose configs differ in the seed alone are one row. The interval is Student's t over the seeds' values: it says how
far another seed may fall, not how well one model was measured (that is ``low``/``high`` in ``metrics.json``).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from selfreward.core.errors import UserError

NOT_COMPARED = ("seed", "run_dir", "runs_dir", "store", "engine", "shard_size")
"""Settings that do not make two runs different experiments."""

DEFAULT_METRICS = (
    "true_score", "fully_correct", "fluent", "win", "tie", "lose", "pairwise_accuracy", "exact_match", "five_best",
    "spearman", "kendall_tau", "parse_rate", "prompts_valid", "prompts_novel", "training_rows", "response_length",
    "seconds",
)  # fmt: skip


@dataclass
class _Run:
    folder: Path
    config: dict[str, Any]
    values: dict[tuple[str, str], float]
    models: list[str] = field(default_factory=list)


def compare(arguments: Sequence[str]) -> None:
    """Print the table.

    Raises:
        UserError: a folder that is no finished run.
    """
    parser = argparse.ArgumentParser(prog="selfreward compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--models", help="which models, such as M1,M3 (default: all)")
    parser.add_argument("--metrics", help=f"which figures (default: {','.join(DEFAULT_METRICS)})")
    parser.add_argument("--format", choices=["text", "markdown", "csv"], default="text")
    given = parser.parse_args(list(arguments))
    runs = [_read(folder) for folder in given.runs]
    metrics = given.metrics.split(",") if given.metrics else DEFAULT_METRICS
    models = given.models.split(",") if given.models else list(dict.fromkeys(m for run in runs for m in run.models))
    rows = _rows(runs, models, metrics)
    print(_render(rows, given.format))


def _read(folder: Path) -> _Run:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        rows = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise UserError(
            f"{folder} is not the folder of a run that has measured a model: no {problem.filename}"
        ) from None
    values = {(row["model"], row["metric"]): row["value"] for row in rows if row["value"] is not None}
    flat = {k: v for k, v in _flat(config).items() if k.split(".")[0] not in NOT_COMPARED}
    return _Run(folder, flat, values, list(dict.fromkeys(row["model"] for row in rows)))


def _flat(node: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {where: node}
    return {
        k: v for key, value in node.items() for k, v in _flat(value, f"{where}.{key}" if where else str(key)).items()
    }


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is special about each config: the settings that not all share, a plugin's name standing for its options."""
    keys = sorted({key for config in configs for key in config})
    differing = [key for key in keys if len({json.dumps(config.get(key), default=str) for config in configs}) > 1]
    swapped = {key.removesuffix(".name") for key in differing if key.endswith(".name")}
    told = [key for key in differing if key.endswith(".name") or key.rsplit(".", 1)[0] not in swapped]
    shown = [" ".join(f"{k.removesuffix('.name')}={c[k]}" for k in told if k in c) for c in configs]
    return [text or "as configured" for text in shown]


def _rows(runs: Sequence[_Run], models: Iterable[str], metrics: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[_Run]] = {}
    for run, label in zip(runs, labels([run.config for run in runs]), strict=True):
        groups.setdefault(label, []).append(run)
    models = list(models)
    known = {metric for run in runs for _, metric in run.values}
    columns = [metric for metric in metrics if metric in known]
    rows = [["what", "model", "seeds", *columns]]
    for label, group in groups.items():
        for model in models:
            found = [[run.values[model, m] for run in group if (model, m) in run.values] for m in columns]
            if any(found):
                rows.append([label, model, str(len(group)), *(interval(values) for values in found)])
    return rows if len(groups) > 1 else [row[1:] for row in rows]


def interval(values: Sequence[float]) -> str:
    """``mean ± half-width`` of the 95 % t interval; one value has none."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    digits = 0 if abs(mean) >= 20 else 2 if abs(mean) >= 1 else 3
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _render(rows: list[list[str]], form: str) -> str:
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue().rstrip()
    # few rows of many figures stay readable in a terminal when the figures run down
    turned = [list(column) for column in zip(*rows, strict=True)] if len(rows) <= 6 else rows
    if form == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in turned]
        return "\n".join([lines[0], "|" + " --- |" * len(turned[0]), *lines[1:]])
    widths = [max(len(cell) for cell in column) for column in zip(*turned, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in turned)
