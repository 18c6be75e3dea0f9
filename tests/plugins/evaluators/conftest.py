"""A context to evaluate in: real rows and rubric, planned scores in place of a model that judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from selfreward import (
    AnsweredPrompt,
    Candidate,
    Completion,
    Data,
    Judgement,
    ModelConfig,
    ModelRef,
    Plugin,
    Prompt,
    Request,
    Rubric,
    digest,
)
from selfreward.core.contracts.rounds import Choice
from selfreward.core.run.context import Files, MeasuringContext
from selfreward.core.run.engines import EngineRoom
from selfreward.core.text.rubric import find_rubric
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

ROOT = Path(__file__).parents[3]
RUBRICS = ROOT / "conf" / "rubric"
M0 = ROOT / "selfreward" / "plugins" / "micro" / "m0"


class PlannedData(Data):
    """Splits that were given; the truth of an answer is what ``config`` says of its text."""

    def __init__(self, splits: Mapping[str, Sequence[AnsweredPrompt]], truths: Mapping[str, dict[str, float]]) -> None:
        super().__init__(truths)
        self.splits = splits

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        return self.splits.get(name, [])


class TrueData(PlannedData):
    def truth(self, prompt: Prompt, answer: str) -> dict[str, float] | None:
        return self.config.get(answer)


@dataclass
class PlannedContext:
    """Judges each answer by the score planned for its text."""

    data: Data
    answers: Sequence[AnsweredPrompt] = ()
    previous: tuple[str, Sequence[AnsweredPrompt]] | None = None
    scores: Mapping[str, Sequence[float | None] | float | None] = field(default_factory=dict)
    rubric_name: str = "additive"
    model: str = "M1"
    run_seed: int = 0
    counted: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    reply: Callable[[Request], str | Completion] = lambda request: ""
    """What the model writes."""
    requests: list[Request] = field(default_factory=list)
    """What it was asked, in order."""
    others: Mapping[str, PlannedContext] = field(default_factory=dict)
    policies: Sequence[str] = ()
    folder: Path = Path()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.requests += requests
        said = [self.reply(request) for request in requests]
        return [[Completion(s, [*s.encode(), 0], "stop", 0) if isinstance(s, str) else s] for s in said]

    def other(self, model: str) -> PlannedContext | None:
        return self.others.get(model)

    def judge(self, answered: Sequence[AnsweredPrompt]) -> list[Judgement]:
        self.judged += sum(len(group.candidates) for group in answered)
        return [self._judgement(c) for group in answered for c in group.candidates]

    def _judgement(self, candidate: Candidate) -> Judgement:
        planned = self.scores[candidate.text]
        votes = list(planned) if isinstance(planned, list) else [planned]
        readable = [vote for vote in votes if vote is not None]
        score = sum(readable) / len(readable) if readable else None
        return Judgement(candidate.candidate_id, "llm", self.model, self.rubric_name, votes, score, [""] * len(votes))

    def rubric(self, name: str | None = None) -> Rubric:
        return Rubric.load(name or "additive", (RUBRICS,))

    def rubric_path(self, name: str | None = None) -> Path:
        return find_rubric(name or "additive", (RUBRICS,))

    def seed(self, *ids: str | int) -> int:
        return int(digest(self.run_seed, *ids), 16) % 2**62

    def count(self, **figures: float) -> None:
        for name, value in figures.items():
            self.counted[name] = self.counted.get(name, 0) + value


def _group(question: str, *texts: str, ranks: Sequence[int | None] = ()) -> AnsweredPrompt:
    prompt = Prompt.of(question, "evaluation")
    known = ranks or [None] * len(texts)
    answers = [
        Candidate.of(prompt, t, k, origin="x", model="x", rank=r)
        for k, (t, r) in enumerate(zip(texts, known, strict=True))
    ]
    return AnsweredPrompt(prompt, answers)


@pytest.fixture
def group() -> Callable[..., AnsweredPrompt]:
    """``group("question?", "answer", ..., ranks=[...])``."""
    return _group


@pytest.fixture
def context() -> Callable[..., PlannedContext]:
    """``context(splits={}, truths=None, answers=..., scores=...)``; without ``truths`` the data has no truth."""

    def build(splits: Any = None, truths: Any = None, **fields: Any) -> PlannedContext:
        data = PlannedData(splits or {}, {}) if truths is None else TrueData(splits or {}, truths)
        return PlannedContext(data, **fields)

    return build


@pytest.fixture(scope="session")
def room() -> EngineRoom:
    """The Transformers engine, which keeps a model open from test to test."""
    plugin = Plugin.of("transformers", TransformersEngine)
    return EngineRoom(Choice("engine", plugin, TransformersConfig(device="cpu")))


@pytest.fixture
def measuring(room: EngineRoom, tmp_path: Path) -> Callable[..., MeasuringContext]:
    """``measuring(splits={}, judging=..., path=...)``: a run's own context, on a real model (the micro world's)."""

    def build(splits: Any = None, judging: Any = None, path: Path = M0) -> MeasuringContext:
        config = ModelConfig(rubric="micro")
        ref = ModelRef("M1", str(path), str(path), config)
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        files = Files(PlannedData(splits or {}, {}), config)
        return MeasuringContext(files, room, ref, 0, ("evaluation", "x"), folder=folder, judging=judging)

    return build
