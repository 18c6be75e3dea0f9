"""``model=micro``: M0, a Llama-architecture checkpoint of 717,952 parameters that is shipped with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfreward import Model, ModelConfig


@dataclass
class MicroModelConfig(ModelConfig):
    """The options every model has; the judge prompt defaults to the one M0 was pre-trained on."""

    rubric: str = "micro"
    """The judge prompt this model is asked with where ``judge.rubric`` does not say."""


class MicroModel(Model):
    """The embedded checkpoint. ``tools/micro_world`` of the checkout rebuilds it."""

    config: MicroModelConfig

    def path(self) -> str:
        return str(Path(__file__).with_name("m0"))
