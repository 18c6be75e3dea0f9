"""``dry_run=true``: the same loop with nothing worked on, and what it would have done as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from selfreward.core.run.progress import Screen
from selfreward.core.store.artifacts import Artifact

if TYPE_CHECKING:
    from selfreward.core.run.stages import KeyedStage


@dataclass
class Step:
    """A stage that would be run. Rows, completions and tokens are at most so many; None where nobody can tell."""

    where: str
    what: str
    model: str
    rows: int | None
    completions: int | None
    tokens: int | None
    reused: bool


@dataclass
class Plan:
    """The steps of a run, in order."""

    steps: list[Step] = field(default_factory=list)
    models: int = 0
    """New checkpoints that would be written."""

    def stage(self, stage: KeyedStage, artifact: Artifact, rows: int | None) -> None:
        """Take note of a stage of a round."""
        config = stage.choice.config
        each = getattr(config, "votes", 1) if stage.name == "judgements" else 1
        completions = rows * each if stage.model and rows is not None else 0 if not stage.model else None
        tokens = None if completions is None else completions * getattr(config, "max_new_tokens", 0)
        if stage.name == "model" and stage.round.online and rows is not None:
            completions, tokens = _online(stage, rows)
        model = stage.model.name if stage.model else stage.round.makes if stage.name == "model" else "-"
        what = f"{stage.name.replace('_', ' ')}: {stage.choice.name}"
        self.steps.append(Step(stage.round.folder, what, model, rows, completions, tokens, artifact.reused))
        self.models += stage.name == "model" and not artifact.reused

    def evaluation(self, model: str, prompts: int, max_new_tokens: int, evaluators: str, reused: bool) -> None:
        """Take note of a model's evaluation."""
        step = Step("evaluation", f"answers, {evaluators}", model, prompts, prompts, prompts * max_new_tokens, reused)
        self.steps.append(step)

    def show(self, screen: Screen, checkpoint: Path) -> None:
        """Print the plan, its totals, and the disk that new checkpoints take."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("round")
        table.add_column("stage")
        table.add_column("model")
        for title in ("rows ≤", "completions ≤", "new tokens ≤"):
            table.add_column(title, justify="right")
        table.add_column("")
        for step in self.steps:
            numbers = [_number(n) for n in (step.rows, step.completions, step.tokens)]
            table.add_row(step.where, step.what, step.model, *numbers, "in the store" if step.reused else "")
        screen.console.print(table)
        to_do = [step for step in self.steps if not step.reused]
        completions, tokens = (sum(getattr(step, name) or 0 for step in to_do) for name in ("completions", "tokens"))
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        screen.line(
            f"\nto do: {len(to_do)} of {len(self.steps)} steps, at most {completions:,} completions and {tokens:,} new "
            f"tokens, {self.models} checkpoints of {size / 1e6:,.1f} MB = {self.models * size / 1e9:,.2f} GB"
        )


def _online(stage: KeyedStage, prompts: int) -> tuple[int, int]:
    """What an online optimizer writes while it trains: answers, and the verdicts on them where a model judges."""
    how, judge = stage.round.sampler.config, stage.round.judge
    answers = math.ceil(prompts * getattr(how, "n", 1) * getattr(stage.choice.config, "epochs", 1))
    asks = hasattr(judge.config, "max_new_tokens") and getattr(judge.plugin.load(), "uses_model", False)
    verdicts = answers * getattr(judge.config, "votes", 1) if asks else 0
    tokens = answers * getattr(how, "max_new_tokens", 0) + verdicts * getattr(judge.config, "max_new_tokens", 0)
    return answers + verdicts, tokens


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}" if value else "-"
