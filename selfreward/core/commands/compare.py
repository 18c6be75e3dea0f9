"""``selfreward compare RUNS...``: what differed x model x figure, mean ± 95 % interval over seeds.

Runs whose configs differ in the seed alone are one row. The interval is Student's t over the seeds' values: it says how
far another seed may fall, not how well one model was measured (that is ``low``/``high`` in ``metrics.json``).

Where settings differ and the data has a ground truth, ``vs first`` compares each setting with that of the first run:
the mean difference of ``true_score``, its 95 % interval and a two-sided p. Answers are paired by seed and held-out
prompt, their differences averaged over the seeds of each prompt, and the prompts resampled (paired bootstrap, Koehn
2004). So it tells whether other prompts would show the same of *these* trained models; how far other seeds may fall is
told by the intervals beside it. Answers are sampled once per prompt and seed, the truth is that of today's plugin, and
p is not corrected for how many cells are looked at. Empty for the first setting, for runs that kept no answers, and
under 10 shared prompts: of so few, differences that happen to have one sign would pass for certain.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.core.contracts.records import Candidate
from selfreward.core.errors import UserError
from selfreward.core.report.run_folder import flat, read_run
from selfreward.core.run.figures import figure_source, in_order, sources
from selfreward.core.store.artifacts import Artifact

NOT_COMPARED = ("seed", "run_dir", "runs_dir", "store", "engine", "shard_size", "monitors", "dry_run")
"""Settings that do not make two runs different experiments."""

FEWEST_PROMPTS = 10
"""Held-out prompts that ``vs first`` needs."""

CELLS = 1_000_000
"""Resampled differences in memory at a time: 16 MB."""

Scores = dict[tuple[str, int, str], list[float]]
"""True scores by model, seed and prompt id."""


@dataclass
class _Run:
    folder: Path
    config: dict[str, Any]
    values: dict[tuple[str, str], float]
    models: list[str]


def compare(arguments: Sequence[str]) -> None:
    """Print the table.

    Raises:
        UserError: a folder that is no finished run.
    """
    parser = argparse.ArgumentParser(prog="selfreward compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--models", help="which models, such as M1,M3 (default: all)")
    usual = [f.metric for name in in_order(sources()) for f in figure_source(name).figures if f.compared]
    shown = f"default: all; as text {','.join(usual)}"
    parser.add_argument("--metrics", help=f"which figures, such as true_score,win ({shown})")
    parser.add_argument("--format", choices=["text", "markdown", "csv"], default="text")
    given = parser.parse_args(list(arguments))
    runs = [_read(folder) for folder in given.runs]
    found = dict.fromkeys(metric for run in runs for _, metric in run.values)
    default = usual if given.format == "text" else list(dict.fromkeys([*usual, *found]))
    metrics = given.metrics.split(",") if given.metrics else default
    models = given.models.split(",") if given.models else list(dict.fromkeys(m for run in runs for m in run.models))
    rows = _rows(runs, models, metrics)
    print(_render(rows, given.format))


def _read(folder: Path) -> _Run:
    run = read_run(folder)
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder} is not the folder of a run that has measured a model: it has no metrics.json")
    values = {(m["model"], m["metric"]): m["value"] for m in run.metrics if m["value"] is not None}
    options = {path: value for path, value in flat(run.config).items() if path.split(".")[0] not in NOT_COMPARED}
    return _Run(folder, options, values, run.models)


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is special about each config: the settings in which it differs from most of the others.

    A plugin's name stands for its options; an option is named where it differs between configs of the same plugin.
    """
    keys = sorted({key for config in configs for key in config})
    varied = [key for key in keys if any(len(set(values)) > 1 for values in _by_plugin(key, configs).values())]
    usual = {key: _majority([_text(config.get(key)) for config in configs]) for key in varied}
    shown = [
        " ".join(f"{k.removesuffix('.name')}={c[k]}" for k in varied if k in c and _text(c[k]) != usual[k])
        for c in configs
    ]
    return [text or "as configured" for text in shown]


def _by_plugin(key: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The values of a setting, by the plugins that stand above it (``judge.votes`` by the judge's name)."""
    parts = key.split(".")
    above = [".".join(parts[:n]) + ".name" for n in range(1, len(parts))]
    values: dict[str, list[str]] = {}
    for config in configs:
        names = _text([config.get(name) for name in above if name != key])
        values.setdefault(names, []).append(_text(config.get(key)))
    return values


def _majority(values: Sequence[str]) -> str:
    """The value of more than half of them; a text that none has where there is none."""
    commonest = max(set(values), key=values.count)
    return commonest if values.count(commonest) * 2 > len(values) else ""


def _text(value: Any) -> str:
    return json.dumps(value, default=str)


def _rows(runs: Sequence[_Run], models: Iterable[str], metrics: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[_Run]] = {}
    for run, label in zip(runs, labels([run.config for run in runs]), strict=True):
        groups.setdefault(label, []).append(run)
    models, metrics = list(models), list(metrics)
    known = {metric for run in runs for _, metric in run.values}
    columns = [metric for metric in metrics if metric in known]
    paired = _against_first(groups, models) if "true_score" in metrics else {}
    rows = [["what", "model", "seeds", *columns, *(["vs first"] if paired else [])]]
    for label, group in groups.items():
        for model in models:
            found = [[run.values[model, m] for run in group if (model, m) in run.values] for m in columns]
            if any(found):
                cells = [interval(values) for values in found] + ([paired.get((label, model), "")] if paired else [])
                rows.append([label, model, str(len(group)), *cells])
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


def _against_first(groups: Mapping[str, Sequence[_Run]], models: Sequence[str]) -> dict[tuple[str, str], str]:
    """The cells of ``vs first`` by label and model; none where there is nothing to compare."""
    if len(groups) < 2:
        return {}
    (_, first), *others = [(label, _true_scores(group, models)) for label, group in groups.items()]
    cells = {}
    for label, scores in others:
        for model in models:
            differences: dict[str, list[float]] = {}
            for key in (key for key in scores if key[0] == model and key in first):
                differences.setdefault(key[2], []).append(statistics.fmean(scores[key]) - statistics.fmean(first[key]))
            if len(differences) >= FEWEST_PROMPTS:
                cells[label, model] = _difference([statistics.fmean(each) for each in differences.values()])
    return cells


def _true_scores(runs: Iterable[_Run], models: Iterable[str]) -> Scores:
    """What the runs' data says of the answers they kept; empty where it has no truth."""
    from omegaconf import DictConfig, OmegaConf

    from selfreward.core.config.resolve import resolve

    scores: Scores = {}
    for run in runs:
        kept = {model: Artifact.at(run.folder / "evaluation" / model / "answers") for model in models}
        tables = {model: table for model, table in kept.items() if table.manifest}
        if not tables:
            continue
        try:
            composed = OmegaConf.load(run.folder / "config.yaml")
            assert isinstance(composed, DictConfig)
            config = resolve(composed)
            data, seed = config.choices["data"].build(), config.options.seed
            held_out = {row.prompt.prompt_id: row.prompt for row in data.split("evaluation", seed)}
        except UserError as problem:  # a plugin or a data file that is no longer there; the figures still are
            print(f"selfreward: {run.folder} is left out of 'vs first': {problem}", file=sys.stderr)
            continue
        for model, table in tables.items():
            for answer in table.rows(Candidate):
                prompt = held_out.get(answer.prompt_id)
                truth = data.truth(prompt, answer.text) if prompt else None
                if truth and "true_score" in truth:
                    scores.setdefault((model, seed, answer.prompt_id), []).append(truth["true_score"])
    return scores


def _difference(differences: Sequence[float]) -> str:
    low, high, p = bootstrap(differences)
    shown = "p<0.001" if p < 0.001 else f"p={p:.3f}"
    return f"{statistics.fmean(differences):+.2f} [{low:+.2f}, {high:+.2f}] {shown}"


def bootstrap(differences: Sequence[float], resamples: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """``low, high, p`` of a mean difference: 95 % percentile interval and two-sided p of the bootstrap.

    ``p = 2 min(#{mean* <= 0} + 1, #{mean* >= 0} + 1) / (resamples + 1)``, at most 1 (Davison & Hinkley 1997, 4.2 and
    5.4: the level at which the percentile interval just reaches 0).
    """
    import numpy as np

    values, rng = np.asarray(differences, dtype=float), np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, CELLS // len(values))
    for chunk in (means[start : start + step] for start in range(0, resamples, step)):
        chunk[:] = values[rng.integers(len(values), size=(len(chunk), len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return float(low), float(high), min(1.0, 2 * (int(tail) + 1) / (resamples + 1))


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
