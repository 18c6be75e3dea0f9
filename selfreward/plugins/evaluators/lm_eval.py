"""Hands the model to the language-model evaluation harness: its tasks, as everybody runs them.

The harness loads the checkpoint from its folder, and fetches the tasks' data from the hub or finds it in the cache.
Each figure of each task is one metric, ``<task>/<figure>``, or ``<task>/<figure>.<filter>`` where the task has filters;
its interval is value ± 1.96 standard errors, by the harness. A group's own figure has the group's name. All that the
harness says is kept beside the figures (``results.json``). It refuses tasks that run code a model wrote.

It takes memory for a second copy of the weights. Seeds are the harness's own (0 and 1234), so figures are those of its
command line with the same options.
Source: https://github.com/EleutherAI/lm-evaluation-harness, version 0.4.13.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from selfreward import Dtype, EvaluationContext, Evaluator, FileContext, Metric, UserError, option
from selfreward.plugins.evaluators.intervals import Z

_MISSING = "the evaluation harness is not installed: pip install 'selfreward[lm_eval]'"


@dataclass
class LmEvalConfig:
    """Which tasks, and how they are run."""

    tasks: list[str] = field(default_factory=list)
    """Names of the harness's tasks, groups or tags: ``[hellaswag,truthfulqa_mc1]``; required."""
    num_fewshot: int | None = option(None, ge=0)
    """Solved examples before each question; None = the task's own number."""
    limit: int | None = option(None, ge=1)
    """Documents of each task, the first ones; None = all."""
    batch_size: int = option(8, ge=1, execution=True)
    """Requests that are run at once."""
    apply_chat_template: bool = False
    """Whether questions are put into the checkpoint's chat template; published numbers of base models are without."""
    dtype: Dtype = Dtype.auto
    """Precision of the weights; auto: the checkpoint's own."""
    min_items: int = option(10, ge=1)
    """A figure over fewer documents is left empty: the interval of ten still covers half of what is possible."""

    def problems(self) -> Iterator[str]:
        if not self.tasks:
            yield "tasks is not set; name tasks of the harness, tasks=[hellaswag,arc_easy]"


class LmEval(Evaluator):
    """The harness's figures."""

    config: LmEvalConfig
    uses_answers = False

    def problems(self, context: FileContext) -> list[str]:
        """The harness is not installed, or does not know a task."""
        if importlib.util.find_spec("lm_eval") is None:
            return [f"evaluators.lm_eval: {_MISSING}"]
        unknown = [name for name in self.config.tasks if not _task_manager().match_tasks([name])]
        return [f"evaluators.lm_eval.tasks: the harness knows no '{name}'; see lm-eval ls tasks" for name in unknown]

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """Run the tasks on the checkpoint's folder.

        Raises:
            UserError: the harness is not installed, or the model has no folder (an engine that runs its own).
        """
        if not (context.path / "config.json").is_file():
            raise UserError("lm_eval needs the checkpoint's folder, and this engine runs a model of its own")
        results = self._results(str(context.path))
        (context.folder / "results.json").write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
        yield from metrics(context.model, results, self.config.min_items)

    def _results(self, path: str) -> Mapping[str, Any]:
        """What ``simple_evaluate`` of the harness says."""
        try:
            import torch
            from lm_eval import simple_evaluate
            from lm_eval.models.huggingface import HFLM
        except ImportError as problem:
            raise UserError(f"{_MISSING} ({problem})") from None

        config = self.config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = HFLM(pretrained=path, dtype=config.dtype.value, batch_size=config.batch_size, device=device)
        results = simple_evaluate(
            model,
            tasks=list(config.tasks),
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            apply_chat_template=config.apply_chat_template,
            log_samples=False,
            task_manager=_task_manager(),
        )
        assert results is not None, "only a process that is not the first one gets nothing"
        return results


@cache
def _task_manager() -> Any:
    """The harness's index of its tasks; reading some fifteen thousand of them takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def metrics(model: str, results: Mapping[str, Any], min_items: int) -> Iterator[Metric]:
    """The harness's results as rows.

    Args:
        model: role of the model.
        results: what ``simple_evaluate`` returns; of it ``results`` ({task: {"acc,none": value,
            "acc_stderr,none": ...}}), ``n-samples`` ({task: {"effective": n}}), ``group_subtasks`` ({group: [task]}).
        min_items: with fewer documents the value is None.
    """
    for task, figures in results["results"].items():
        n = _documents(task, results)
        for key, value in figures.items():
            name, _, filtered = key.partition(",")
            if not filtered or name.endswith("_stderr") or not _is_number(value):
                continue
            error = figures.get(f"{name}_stderr,{filtered}")
            known = n >= min_items
            half = Z * error if known and _is_number(error) else None
            yield Metric(
                model,
                "lm_eval",
                f"{task}/{name}" + (f".{filtered}" if filtered != "none" else ""),
                float(value) if known else None,
                None if half is None else value - half,
                None if half is None else value + half,
                n,
            )


def _documents(task: str, results: Mapping[str, Any]) -> int:
    """Documents behind a task's figures; a group has those of its tasks."""
    if task in results["n-samples"]:
        return int(results["n-samples"][task]["effective"])
    return sum(_documents(part, results) for part in results.get("group_subtasks", {}).get(task, ()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
