"""What optimizers declare of themselves, so that nobody guesses it from their options."""

from __future__ import annotations

import pytest

from selfreward.plugins.optimizers.group_relative import Grpo, GrpoConfig
from selfreward.plugins.optimizers.kto import Kto, KtoConfig
from selfreward.plugins.optimizers.ppo.optimizer import Ppo
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig
from selfreward.plugins.optimizers.reward_model import RewardModel, RewardModelConfig
from selfreward.plugins.optimizers.sft import Sft, SftConfig

EVERY = [
    Sft(SftConfig(epochs=1.5)),
    Dpo(DpoConfig(epochs=1.5)),
    Kto(KtoConfig(epochs=1.5)),
    RewardModel(RewardModelConfig(epochs=1.5)),
    Grpo(GrpoConfig(epochs=1.5)),
    Ppo(PpoConfig(epochs=1.5)),
]


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda optimizer: type(optimizer).__name__)
def test_passes_and_checkpoints_are_those_of_the_options(optimizer):
    assert (optimizer.passes, optimizer.checkpoints) == (1.5, True)
    bare = type(optimizer)(type(optimizer.config)(checkpoint_steps=0))
    assert not bare.checkpoints


def test_who_replays():
    assert [Dpo(DpoConfig(replay=weight)).replays for weight in (0.0, 0.1)] == [False, True]
    assert [Kto(KtoConfig(replay=weight)).replays for weight in (0.0, 0.1)] == [False, True]
    assert [Ppo(PpoConfig(replay=weight)).replays for weight in (0.0, 0.1)] == [False, True]
    assert not Sft(SftConfig()).replays


def test_a_critic_is_a_model_of_its_own():
    assert [Ppo(PpoConfig(critic=role)).critic for role in ("head", "start", "reward")] == [None, "start", "reward"]
