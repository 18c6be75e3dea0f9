"""Who declares how a metric is shown: evaluators on their classes, and here what the loop itself measures."""

from __future__ import annotations

from collections.abc import Iterable

from selfreward.core.config.registry import registry
from selfreward.core.contracts.evaluation import Figure, FigureSource, Plot
from selfreward.core.errors import UserError


class Loop(FigureSource):
    """The round that made a model: its counters, and the length of the model's answers."""

    title = "The round that made it"
    figures = (
        Figure("prompts_valid", share=True, better="higher", compared=True),
        Figure("prompts_novel", share=True, better="higher", compared=True),
        Figure("training_rows", "", "{:,.0f}", row="trained on, rows", compared=True),
        Figure("pair_yield", "Training rows per prompt", better="higher", share=True, row="rows per prompt"),
        Figure("response_length", "Answer length, characters", "{:.0f}", row="answer length, characters",
               compared=True),
        Figure("seconds", "", "{:.1f}", "lower", row="seconds of its round", compared=True),
        Figure("engine_busy", better="higher", share=True, row="engine busy while generating"),
        Figure("judge_parse_rate", "Verdicts readable", better="higher", share=True),
        Figure("cut_off", "Answers cut off", better="lower", share=True),
    )  # fmt: skip
    plots = (
        Plot("Answer length", "Characters, mean over held-out prompts", ("response_length",), from_zero=True),
        Plot("Verdicts that could be read", "Share of the votes", ("judge_parse_rate",), ("in training",)),
        Plot("Training rows per prompt", "Pair yield of the round", ("pair_yield",)),
    )


class Training(FigureSource):
    """What an optimizer has said of its work: ``training_loss``, ..."""

    title = "How it was trained"

    @classmethod
    def figure(cls, metric: str) -> Figure:
        """By the optimizer's own name for it."""
        return Figure(metric, Figure(metric.removeprefix("training_")).words)


OWN: dict[str, type[FigureSource]] = {"loop": Loop, "training": Training}
"""What no evaluator measures, by the names under which it stands among the metrics."""


def figure_source(evaluator: str) -> type[FigureSource]:
    """Who declares an evaluator's figures; one that declares nothing where the evaluator is not installed."""
    if evaluator in OWN:
        return OWN[evaluator]
    try:
        found = registry().get("evaluators", evaluator).load()
    except UserError:
        return FigureSource
    return found if isinstance(found, type) and issubclass(found, FigureSource) else FigureSource


def has_rows(evaluator: str) -> bool:
    """Whether an evaluator says which of its metrics are in the table at the end of a run."""
    return any(figure.row for figure in figure_source(evaluator).figures)


def sources() -> list[str]:
    """All that may have measured something here: the evaluators as they are registered, then what is the loop's own."""
    return [*registry().kinds["evaluators"], *OWN]


def in_order(evaluators: Iterable[str]) -> list[str]:
    """These evaluators in the order of the tables: those that have rows there, the loop, the others as they come."""
    found = dict.fromkeys(evaluators)
    first = [name for name in sources() if name in OWN or has_rows(name)]
    return [name for name in dict.fromkeys([*first, *found]) if name in found]
