"""``dry_run=true``: the same loop with nothing worked on, and what it would have done as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from selfreward.core.run.progress import Screen


@dataclass(frozen=True)
class Cost:
    """What a stage asks of its models, at most."""

    completions: int
    tokens: int
    """New tokens."""


@dataclass
class PlannedStage:
    """A stage that would be run. Rows and cost are at most so much; None where nobody can tell."""

    where: str
    what: str
    model: str
    rows: int | None
    cost: Cost | None
    reused: bool


@dataclass
class Plan:
    """The stages of a run, in order."""

    stages: list[PlannedStage] = field(default_factory=list)
    models: int = 0
    """New checkpoints that would be written."""

    def add(self, stage: PlannedStage, trains: bool = False) -> None:
        """Take note of a stage."""
        self.stages.append(stage)
        self.models += trains and not stage.reused

    @property
    def to_do(self) -> list[PlannedStage]:
        """The stages that the store does not have."""
        return [stage for stage in self.stages if not stage.reused]

    def evaluation(self, model: str, prompts: int, max_new_tokens: int, evaluators: str, reused: bool) -> None:
        """Take note of a model's evaluation."""
        cost = Cost(prompts, prompts * max_new_tokens)
        self.add(PlannedStage("evaluation", f"answers, {evaluators}", model, prompts, cost, reused))

    def show(self, screen: Screen, checkpoint: Path) -> None:
        """Print the plan, its totals, and the disk that new checkpoints take."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("round")
        table.add_column("stage")
        table.add_column("model")
        for title in ("rows ≤", "completions ≤", "new tokens ≤"):
            table.add_column(title, justify="right")
        table.add_column("")
        for stage in self.stages:
            cost = stage.cost
            numbers = [stage.rows, cost.completions if cost else None, cost.tokens if cost else None]
            last = "in the store" if stage.reused else ""
            table.add_row(stage.where, stage.what, stage.model, *map(_number, numbers), last)
        screen.console.print(table)
        costs = [stage.cost for stage in self.to_do if stage.cost]
        completions, tokens = sum(cost.completions for cost in costs), sum(cost.tokens for cost in costs)
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        disk = f"{self.models} checkpoints of {size / 1e6:,.1f} MB = {self.models * size / 1e9:,.2f} GB"
        screen.line(
            f"\nto do: {len(self.to_do)} of {len(self.stages)} steps, at most {completions:,} completions and "
            f"{tokens:,} new tokens, {disk}"
        )


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}" if value else "-"
