"""The embedded model, run by the real engine, in a stage's context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import selfreward.plugins.micro
from selfreward import Completion, Continuations, Engine, Likelihood, ModelConfig, ModelRef, Request, Rubric
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.testing import ScriptedContext


@dataclass
class EngineContext(ScriptedContext):
    """A context that runs a model instead of a script."""

    engine: Engine | None = None

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """What the engine writes."""
        self.requests += requests
        return self.engine.generate(requests)

    def likelihoods(self, requests: Sequence[Continuations]) -> list[list[Likelihood]]:
        """What the engine finds likely."""
        self.weighed += requests
        return self.engine.likelihoods(requests)


@pytest.fixture(scope="session")
def on_m0() -> Callable[[Rubric], EngineContext]:
    """``on_m0(rubric)``: a context in which M0, which declares that rubric, writes and weighs."""
    engine = TransformersEngine(TransformersConfig())
    engine.open(ModelRef("M0", str(Path(selfreward.plugins.micro.__file__).with_name("m0")), "m0", ModelConfig()))
    return lambda rubric: EngineContext(model="M0", declared_rubric=rubric, engine=engine)
