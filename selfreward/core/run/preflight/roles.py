"""Every model that an option names is there by the time its round begins, and is of the kind that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from selfreward.core.contracts.options import RoleKind, roles
from selfreward.core.contracts.rounds import Choice, Round

FIRST = ["base", "M0", "policy"]
"""Roles that are played before the first round."""


def role_problems(rounds: Sequence[Round]) -> Iterator[str]:
    """Stages that name a role which nobody plays yet."""
    policies, rewards = list(FIRST), list[str]()
    for round in rounds:
        played = {RoleKind.policy: policies, RoleKind.reward: rewards, RoleKind.any: [*policies, *rewards]}
        for choice in (round.prompt_generator, round.sampler, round.judge, round.optimizer):
            for option, (said, rule) in roles(choice.config).items():
                allowed = [*played[rule.kind], *rule.words]
                if said not in allowed and not Path(said).is_dir():
                    what = "reward model" if rule.kind is RoleKind.reward else "model"
                    yield (
                        f"{choice.kind}.{option}={said}: no {what} plays this role in {round.folder}; "
                        f"there are: {', '.join(allowed) or 'none yet'}, or the path of a model folder"
                    )
        made = rewards if round.makes_reward else policies
        names = [round.makes, "reward"] if round.makes_reward else [round.makes]
        made += [name for name in names if name not in made]


def evaluator_role_problems(evaluators: Sequence[Choice], rounds: Sequence[Round]) -> Iterator[str]:
    """Evaluators compare with, and ask, models that there are or will be."""
    known = [*FIRST, *(round.makes for round in rounds)]
    for choice in evaluators:
        for option, (said, rule) in roles(choice.config).items():
            if said not in [*known, *rule.words] and not Path(said).is_dir():
                there = ", ".join(dict.fromkeys([*rule.words, *known]))
                yield (
                    f"evaluators.{choice.name}.{option}={said}: no model plays this role; there are: {there}, or the "
                    "path of a model folder"
                )
