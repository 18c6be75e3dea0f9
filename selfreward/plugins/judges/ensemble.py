"""Several judges instead of one: score = mean, median or minimum of their scores, each scaled to 0..1.

share of a member = (score − low) / (high − low), cut at 0 and 1
low and high      = the range of the member's rubric; of a member without one (``length``) that in ``ranges``

A member that has no score for an answer is left out there; where fewer than ``quorum`` have one the answer has none.
The minimum is the cautious one: an answer is as good as its strictest judge finds it, which is harder to game.

One form asks one model by several rubrics, the other mixes judges of any kind::

    judge=ensemble 'judge.members={a: {name: llm_cot, rubric: scalar}, b: {name: llm_cot, rubric: multiple_choice}}'
    judge=ensemble judge.members=[llm_cot,length] judge.ranges.length=[0,500]

Source: arXiv:2404.18796 (a panel of judges); arXiv:2310.02743 (mean and worst case of several reward models).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

from selfreward import AnsweredPrompt, FileContext, Judge, Judgement, StageContext, option, role


class Aggregate(Enum):
    """How the members' shares become one."""

    mean = "mean"
    median = "median"
    min = "min"


_AGGREGATES: dict[Aggregate, Callable[[list[float]], float]] = {
    Aggregate.mean: fmean,
    Aggregate.median: median,
    Aggregate.min: min,
}


@dataclass
class EnsembleConfig:
    """Options of ``judge=ensemble``."""

    members: Any = field(default=None, metadata={"members": "judge", "execution": True})
    """The judges: a list of names, or NAME: {name: judge, option: value}; what model they run is ``judge.model``."""
    aggregate: Aggregate = Aggregate.mean
    """mean, median or min of the members' scores, each scaled to 0..1 by its range."""
    quorum: int = option(1, ge=1)
    """Members that must have a score for an answer, or it has none."""
    ranges: dict[str, list[float]] = field(default_factory=dict)
    """Lowest and highest score of members without a rubric: ``judge.ranges.length=[0,500]``."""
    model: str = role("policy")
    """Role of the model that judges."""

    def problems(self) -> list[str]:
        """Ranges that are none, or that belong to nobody."""
        known = list(self.members) if isinstance(self.members, dict | list) else []
        bad = [
            name for name, span in self.ranges.items() if len(span) != 2 or not -math.inf < span[0] < span[1] < math.inf
        ]
        return [
            *(
                f"ranges.{name}={self.ranges[name]}: give the lowest and the highest score, as in [0,500]"
                for name in bad
            ),
            *(
                f"ranges.{n}: no member has this name ({', '.join(known) or 'none'})"
                for n in self.ranges
                if n not in known
            ),
        ]


class Ensemble(Judge):
    """Asks every member about every answer."""

    uses_model = True
    config: EnsembleConfig

    def __init__(self, config: EnsembleConfig, members: Mapping[str, Judge] | None = None) -> None:
        super().__init__(config)
        self.members = members or {}

    def files(self, context: FileContext) -> list[Path]:
        return [path for member in self.members.values() for path in member.files(context)]

    def problems(self, context: FileContext) -> list[str]:
        """The members' problems, and what keeps them from being put together."""
        if len(self.members) < 2:
            return ["judge=ensemble wants two members or more: judge.members=[llm_cot,pairwise]"]
        found = [f"judge.members.{n}: {p}" for n, member in self.members.items() for p in member.problems(context)]
        if found:
            return found
        if self.config.quorum > len(self.members):
            found.append(f"judge.quorum={self.config.quorum} is more than the {len(self.members)} members")
        for name, member in self.members.items():
            role = getattr(member.config, "model", "policy")
            if role not in ("policy", self.config.model):
                found.append(f"judge.members.{name}.model={role}: all members run judge.model={self.config.model}")
            if self._range(name, context) is None:
                found.append(
                    f"judge.members.{name} has no rubric that tells its range: give judge.ranges.{name}=[0,500]"
                )
        return found

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate; its votes are the members' shares, in their order."""
        spans = [self._range(name, context) or (0.0, 1.0) for name in self.members]
        judged = [
            list(member.score(answered, cast(StageContext, _Within(context, name))))
            for name, member in self.members.items()
        ]
        for own in zip(*judged, strict=True):
            votes = [share(said.score, *span) for said, span in zip(own, spans, strict=True)]
            read = [vote for vote in votes if vote is not None]
            score = float(_AGGREGATES[self.config.aggregate](read)) if len(read) >= self.config.quorum else None
            rubrics = "+".join(said.rubric for said in own if said.rubric != "-") or "-"
            words = [_words(name, said) for name, said in zip(self.members, own, strict=True)]
            yield Judgement(own[0].candidate_id, "ensemble", context.model, rubrics, votes, score, words)

    def _range(self, name: str, context: FileContext | StageContext) -> tuple[float, float] | None:
        """A member's lowest and highest score; None where nobody says."""
        if name in self.config.ranges:
            low, high = self.config.ranges[name]
            return low, high
        config = self.members[name].config
        if not hasattr(config, "rubric"):
            return None
        rubric = context.rubric(config.rubric)
        return rubric.low, rubric.high


class _Within:
    """The context of one member: everything as outside, but seeds of its own, so that no two draw alike, and counters
    of its own (``strict.unasked``).
    """

    def __init__(self, context: StageContext, name: str) -> None:
        self._context, self._name = context, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def seed(self, *ids: str | int) -> int:
        return self._context.seed(self._name, *ids)

    def count(self, **figures: float) -> None:
        self._context.count(**{f"{self._name}.{figure}": value for figure, value in figures.items()})


def share(score: float | None, low: float, high: float) -> float | None:
    """Where a score lies between low (0) and high (1)."""
    return None if score is None else min(1.0, max(0.0, (score - low) / (high - low)))


def _words(name: str, said: Judgement) -> str:
    score = "no score" if said.score is None else f"{said.score:g}"
    return "\n\n".join([f"[{name}: {score}]", *filter(None, said.rationales)])
