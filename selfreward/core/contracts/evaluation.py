"""The contract of evaluators: what they are given, the metrics they yield, and how those are shown to people."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Protocol

from selfreward.core.contracts.records import AnsweredPrompt, Judgement, Record
from selfreward.core.contracts.stages import Stage, StageContext


@dataclass(frozen=True, slots=True)
class Metric(Record):
    """One figure about one model. ``low`` to ``high`` is its 95 % interval, ``n`` the number of items behind it."""

    model: str
    evaluator: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Figure:
    """How people are shown a metric: in the table at the end of a run, in the report, and by ``selfreward compare``."""

    metric: str
    """Name of the metric; with a ``*`` in it, of all that match and are not declared by their own names (``*_win``)."""
    label: str = ""
    """Its name for people; empty: the metric's, its underscores as spaces."""
    format: str = ""
    """How its value is written in the run's last table; empty: ``{:.0%}`` for a share, else ``{:.3g}``."""
    better: str = ""
    """``higher`` or ``lower``, where one of them is better."""
    share: bool = False
    """Whether it is a part of a whole, from 0 to 1; the report shows it in percent."""
    row: str = ""
    """Row of the run's last table that it stands in. An evaluator without any has all its metrics there, with their
    intervals; figures of the same row stand in one cell, as ``win/tie/lose`` do."""
    compared: bool = False
    """Whether ``selfreward compare`` shows it as text where no metrics are named."""

    @property
    def words(self) -> str:
        """The label, or the metric's name in words."""
        plain = self.metric.replace("_", " ")
        return self.label or plain[:1].upper() + plain[1:]

    def written(self, value: float) -> str:
        """A value as it stands in the run's last table."""
        return (self.format or ("{:.0%}" if self.share else "{:.3g}")).format(value)


@dataclass(frozen=True)
class Plot:
    """A plot of the report: some metrics, model by model. What declares the same title is drawn into the same plot."""

    title: str
    note: str
    """What is seen, in a few words."""
    metrics: tuple[str, ...]
    names: tuple[str, ...] = ()
    """What the metrics are called in this plot; empty: their labels."""
    stacked: bool = False
    """Whether they are the parts of one bar (shares that add up to 1), and not a line each."""
    from_zero: bool = False
    """Whether the axis starts at 0, so that a small change looks small; that of shares always goes from 0 to 1."""


class FigureSource:
    """What makes metrics, and says how they are shown."""

    title: ClassVar[str] = ""
    """Heading of its metrics in the report; empty: the evaluator's name."""
    figures: ClassVar[tuple[Figure, ...]] = ()
    """The metrics about which there is more to say than their names, in the order of the tables."""
    plots: ClassVar[tuple[Plot, ...]] = ()

    @classmethod
    def figure(cls, metric: str) -> Figure:
        """How a metric is shown: as declared under its name, else by the first pattern that matches it."""
        exact = [figure for figure in cls.figures if figure.metric == metric]
        known = exact or [figure for figure in cls.figures if fnmatchcase(metric, figure.metric)]
        return replace(known[0], metric=metric) if known else Figure(metric)


class EvaluationContext(StageContext, Protocol):
    """What an evaluator is given: the open model, and answers to the held-out prompts."""

    @property
    def answers(self) -> Sequence[AnsweredPrompt]:
        """The model's own answers to ``data.split("evaluation")``, one each."""
        ...

    @property
    def previous(self) -> tuple[str, Sequence[AnsweredPrompt]] | None:
        """Name and answers of the model it is compared with; None for the first one."""
        ...

    def judge(self, answered: Sequence[AnsweredPrompt]) -> list[Judgement]:
        """The run's LLM judge with this model as the judge; ``rubric()`` without a name is the one it uses."""
        ...

    @property
    def policies(self) -> Sequence[str]:
        """The policies made so far, in order, this model last; :meth:`other` gives the context of each."""
        ...

    @property
    def path(self) -> Path:
        """Folder of the model's checkpoint."""
        ...

    @property
    def folder(self) -> Path:
        """Where the evaluator may leave files; the run's folder links to it (``evaluation/<model>/<evaluator>``)."""
        ...

    def other(self, model: str) -> EvaluationContext | None:
        """This context on another model: a role, the path of a model folder, or ``judge``, the model that judges in the
        loop, on the judge's engine. None where no model plays that role yet.

        The options by which an evaluator names other models (:func:`selfreward.role`) are part of its key.
        """
        ...


class Evaluator(Stage, FigureSource):
    """Measures a model; trains nothing."""

    unit = "table"
    uses_model = True
    uses_answers: ClassVar[bool] = True
    """Whether it reads ``context.answers``; where no evaluator does, the held-out prompts are not answered."""
    measures: ClassVar[str] = "policy"
    """``policy``, or ``reward`` for an evaluator of reward models."""
    uses_policies: ClassVar[bool] = False
    """Whether it reads ``context.policies``, all models so far; their weights are part of its key then."""

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> Iterable[Metric]:
        """The figures of ``context.model``: :class:`Metric` records that name it.

        An evaluator that ranks all models together names the others as well; a newer figure replaces an older one.
        """
