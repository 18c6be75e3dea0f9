"""What the stages of a run share, and nothing of the run besides."""

from __future__ import annotations

from dataclasses import dataclass

from selfreward.core.config.resolve import RunOptions
from selfreward.core.contracts.data import Data
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import Prompt
from selfreward.core.run.announcer import Announcer
from selfreward.core.run.context import Context, Files
from selfreward.core.run.engines import EngineRoom, Engines
from selfreward.core.run.identity import Identity
from selfreward.core.run.plan import Plan
from selfreward.core.run.roles import Roles
from selfreward.core.run.round_log import RoundLog
from selfreward.core.run.step import Steps
from selfreward.core.store.artifacts import Store


@dataclass(frozen=True)
class Resources:
    """The data, the models, the engines, the store, and those who take note."""

    options: RunOptions
    files: Files
    roles: Roles
    identity: Identity
    engines: Engines
    store: Store
    steps: Steps
    log: RoundLog
    announcer: Announcer
    plan: Plan

    @property
    def data(self) -> Data:
        """Seed prompts, human answers, held-out sets."""
        return self.files.data

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.options.seed

    def context(self, room: EngineRoom, model: ModelRef | None, *scope: str | int) -> Context:
        """What a plugin is given: the model on its engine, and seeds that depend on the scope."""
        return Context(self.files, room, model, self.seed, scope, roles=lambda role: room.ref(self.roles[role]))

    def seed_prompts(self) -> list[Prompt]:
        """The prompts that exist before the loop."""
        return [row.prompt for row in self.data.split("ift", self.seed)]

    def held_out_prompts(self) -> list[Prompt]:
        """Prompts that must never be trained on."""
        return [row.prompt for name in ("evaluation", "judge_evaluation") for row in self.data.split(name, self.seed)]
