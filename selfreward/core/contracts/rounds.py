"""Rounds, and recipes that string them together.

Everything is a round of the same five stages. M1 is made by rounds whose answers and ranks come from people
(``sampler=human judge=human_rank``); the loop's rounds differ only in who answers and who judges.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfreward.core.contracts.data import Data
from selfreward.core.contracts.plugin import Plugin
from selfreward.core.contracts.records import Instruction, TrainingRow


@dataclass(frozen=True)
class Choice:
    """A plugin that was picked, with its validated config.

    An option declared with ``field(default_factory=dict, metadata={"members": "judge", "execution": True})`` names
    further plugins: a list of names, or ``{NAME: {name: plugin, option: value}}``. They are ``members``, checked and
    keyed like any other, and the plugin's class gets them, built, as its second argument.
    """

    kind: str
    plugin: Plugin
    config: Any
    members: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.plugin.name

    def with_members(self) -> Iterator[Choice]:
        """This one, those that its options name, and theirs."""
        yield self
        for member in self.members.values():
            yield from member.with_members()

    def build(self) -> Any:
        """A new instance."""
        members = {name: member.build() for name, member in self.members.items()}
        return self.plugin.load()(self.config, *([members] if members else []))


@dataclass
class RoundConfig:
    """A round of a recipe, as configured under ``recipe.<round>.<stage>``: ``{name: plugin, option: value}`` each.

    Options that a recipe does not name have their plugin's defaults. A stage given by its name alone has none in the
    config, so that another plugin may be named in its place.
    """

    prompt_generator: Any = None
    """Stage 1 of this round."""
    sampler: Any = None
    """Stage 2 of this round."""
    judge: Any = None
    """Stage 3 of this round."""
    selector: Any = None
    """Stage 4 of this round."""
    optimizer: Any = None
    """Stage 5 of this round."""
    pair_filters: Any = field(default_factory=dict)
    """Which training rows are kept, as ``{plugin: {name: plugin, option: value}}``."""


STAGES = ("prompt_generator", "sampler", "judge", "selector", "optimizer")
"""The groups of the five stages, in order."""


@dataclass(frozen=True)
class Round:
    """One pass through the five stages.

    ``makes`` is the role of the model it trains (``M2``). ``train_on`` names earlier rounds whose training sets are
    added to this one's. Models are named by the stages' configs: ``judge.model``, ``optimizer.init_from``.
    """

    name: str
    prompt_generator: Choice
    sampler: Choice
    judge: Choice
    selector: Choice
    optimizer: Choice
    makes: str = "M1"
    iteration: int = 0
    train_on: tuple[str, ...] = ()
    prompt_filters: tuple[Choice, ...] = ()
    candidate_filters: tuple[Choice, ...] = ()
    pair_filters: tuple[Choice, ...] = ()
    is_loop: bool = False
    """Whether the top-level groups configure it: ``judge_engine`` is the engine of these rounds' judge."""

    @classmethod
    def of(cls, name: str, config: RoundConfig, **fields: Any) -> Round:
        """A round from its validated config."""
        stages = {kind: getattr(config, kind) for kind in STAGES}
        return cls(name, **stages, pair_filters=config.pair_filters, **fields)

    def at(self, iteration: int, makes: str) -> Round:
        """This round as iteration 1, 2, ... of the loop."""
        return dataclasses.replace(self, iteration=iteration, makes=makes)

    @property
    def online(self) -> bool:
        """Whether the optimizer gets prompts alone, and samples and judges while it trains: no stages 2 and 3."""
        return self.writes is Instruction

    @property
    def makes_reward(self) -> bool:
        """Whether it makes a reward model instead of a policy."""
        return self.optimizer.plugin.load().makes == "reward"

    @property
    def writes(self) -> type[TrainingRow]:
        """What its selector writes and its optimizer is trained on."""
        return self.selector.plugin.load().writes

    @property
    def folder(self) -> str:
        """Name of its folder in the run: ``ift``, ``iter-01``."""
        return f"iter-{self.iteration:02d}" if self.iteration else self.name


class Recipe(ABC):
    """A ``recipe`` plugin: a short generator of rounds that reads like the paper it cites."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def rounds(self, loop: Round, iterations: int, data: Data) -> Iterator[Round]:
        """The rounds in order. ``loop`` is the round that the top-level groups configure; ``M0`` exists already."""
