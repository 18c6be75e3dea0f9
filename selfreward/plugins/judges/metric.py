"""Any text metric as the judge: score = Σ weight · metric(prompt, answer, references).

::

    judge=metric judge.metrics=[rouge_l]
    judge=metric 'judge.metrics={rouge_l: {}, brief: {name: length, target: 50}}' judge.weights.brief=0.2

A metric is a plugin (hook ``selfreward_metrics``), so that anybody's package brings its own. The references are the
human answers to the prompt that people ranked top, in the splits ``ift`` and ``evaluation``; a human answer that is
judged is not compared with itself. Where a metric that needs references finds none, or a metric cannot tell, the answer
has no score: half of a sum is no sum.

Source: arXiv:2210.01241 §3 (RL4LMs: lexical, semantic and task metrics as rewards).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfreward import AnsweredPrompt, FileContext, Judge, Judgement, Prompt, StageContext, StageError, TextMetric
from selfreward.plugins.judges.review import reference_of, top_answers


@dataclass
class MetricConfig:
    """Options of ``judge=metric``."""

    metrics: Any = field(default=None, metadata={"members": "metric", "execution": True})
    """The metrics: a list of names, or NAME: {name: metric, option: value}."""
    weights: dict[str, float] = field(default_factory=dict)
    """What each metric counts, by its name; 1 where none is given, below 0 for what is to be avoided."""

    def problems(self) -> list[str]:
        """Weights that are none, or that belong to nobody."""
        known = list(self.metrics) if isinstance(self.metrics, dict | list) else []
        strange = [name for name in self.weights if name not in known]
        endless = [name for name, weight in self.weights.items() if not math.isfinite(weight)]
        return [
            *(f"weights.{name}: no metric has this name ({', '.join(known) or 'none'})" for name in strange),
            *(f"weights.{name}={self.weights[name]} is no number" for name in endless),
        ]


class MetricJudge(Judge):
    """Adds up what the metrics say of each answer."""

    config: MetricConfig

    def __init__(self, config: MetricConfig, metrics: Mapping[str, TextMetric] | None = None) -> None:
        super().__init__(config)
        self.metrics = metrics or {}

    def files(self, context: FileContext) -> list[Path]:
        return [path for metric in self.metrics.values() for path in metric.files(context)]

    def problems(self, context: FileContext) -> list[str]:
        """The metrics' problems, and data in which nobody has answered a prompt."""
        if not self.metrics:
            return ["judge=metric wants a metric or more: judge.metrics=[rouge_l]"]
        found = [f"judge.metrics.{n}: {p}" for n, metric in self.metrics.items() for p in metric.problems(context)]
        comparing = [name for name, metric in self.metrics.items() if metric.needs_references]
        if comparing and not top_answers(context.data, 0):
            found.append(
                f"judge=metric: {', '.join(comparing)} compares with human answers, and the data has none; use data "
                "that has, or other judge.metrics"
            )
        return found

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate, with what each metric says as its words."""
        comparing = any(metric.needs_references for metric in self.metrics.values())
        best = top_answers(context.data, context.run_seed) if comparing else {}
        for group in answered:
            references = reference_of(group, best)
            for candidate in group.candidates:
                said = {name: self._value(name, group.prompt, candidate.text, references) for name in self.metrics}
                known = {name: value for name, value in said.items() if value is not None}
                score = sum(self._weight(n) * v for n, v in known.items()) if len(known) == len(said) else None
                context.count(no_reference=comparing and not references, unscored=score is None)
                words = "\n".join(f"{n}: {'cannot tell' if v is None else f'{v:.4g}'}" for n, v in said.items())
                yield Judgement(candidate.candidate_id, "metric", "-", "-", [score], score, [words])

    def _weight(self, name: str) -> float:
        return self.config.weights.get(name, 1.0)

    def _value(self, name: str, prompt: Prompt, answer: str, references: Sequence[str]) -> float | None:
        metric = self.metrics[name]
        if metric.needs_references and not references:
            return None
        value = metric(prompt, answer, references)
        if value is not None and not math.isfinite(value):
            raise StageError(f"judge=metric: metric '{name}' gave {value} for an answer to prompt {prompt.prompt_id}")
        return None if value is None else float(value)
