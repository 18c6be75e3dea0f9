"""A registration made of a class: its target and its options are read off the class."""

# annotations stay classes here, as in a module without `from __future__ import annotations`

from dataclasses import dataclass

import pytest

from selfreward import Plugin, Selector
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig, Rpo, RpoConfig


@dataclass
class MineConfig:
    """Options."""


class Mine(Selector):
    """Says its options."""

    config: MineConfig


class Heir(Mine):
    """Has those of its base."""


class Silent:
    """Says nothing."""


def test_target_and_options_are_the_classs_own_or_its_bases():
    assert Plugin.of("mine", Mine, "a paper", partner="dpo") == Plugin(
        "mine", f"{__name__}:Mine", MineConfig, "a paper", "dpo"
    )
    assert Plugin.of("heir", Heir).config is MineConfig
    assert (Plugin.of("dpo", Dpo).config, Plugin.of("rpo", Rpo).config) == (DpoConfig, RpoConfig)
    assert Plugin.of("dpo", Dpo).load() is Dpo


def test_a_class_that_does_not_say_its_options_is_told_how():
    with pytest.raises(TypeError, match="Silent does not declare its options; say `config: SilentConfig`"):
        Plugin.of("silent", Silent)
