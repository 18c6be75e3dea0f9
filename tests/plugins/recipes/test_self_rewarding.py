"""The paper's recipe: which rounds, from which model, on which sets; and how it composes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from selfreward import AnsweredPrompt, Data, Plugin, Prompt, Round, UserError
from selfreward.core.config.registry import collect
from selfreward.core.config.resolve import register_schemas
from selfreward.core.contracts.rounds import STAGES, Choice
from selfreward.plugins.recipes.self_rewarding import EftSource, SelfRewarding, SelfRewardingConfig

CONF = Path(__file__).parents[3] / "conf"


@dataclasses.dataclass
class AnyConfig:
    """A config that is only carried about."""


class Splits(Data):
    """Data with the splits that ``config`` names."""

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        return [AnsweredPrompt(Prompt.of("x", name), [])] if name in self.config else []


LOOP = Round("loop", *(Choice(k, Plugin(k, "m:C", AnyConfig), AnyConfig()) for k in ("g", "s", "j", "sel", "opt")))  # type: ignore[arg-type]


def rounds(*splits: str, iterations: int = 2, source: EftSource = EftSource.file) -> list[Round]:
    config = SelfRewardingConfig()
    config.eft.source = source
    recipe = SelfRewarding(config)
    return list(recipe.rounds(LOOP, iterations, Splits(splits)))


def told(found: list[Round]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(r.folder, r.makes, r.train_on) for r in found]


def test_the_papers_models() -> None:
    found = rounds("ift", "eft")
    assert told(found) == [
        ("ift", "sft", ()),
        ("eft", "M1", ("ift",)),
        ("iter-01", "M2", ()),
        ("iter-02", "M3", ()),
    ]
    assert found[0].optimizer["init_from"] == "policy"
    assert found[1].optimizer["init_from"] == "M0"
    assert all(r.sampler is LOOP.sampler and r.optimizer is LOOP.optimizer for r in found[2:])


def test_verdicts_may_be_made_from_ranked_replies() -> None:
    found = rounds("ift", "ranked", source=EftSource.ranked)
    assert told(found)[:2] == [("ift", "sft", ()), ("eft_ranked", "M1", ("ift",))]
    assert found[1].judge["model"] == "sft"
    assert found[1].selector["name"] == "agreement"
    assert found[1].optimizer["init_from"] == "M0"
    assert list(found[1].pair_filters) == ["score_balance"]


@pytest.mark.parametrize(
    "found",
    [rounds("ift", "eft", source=EftSource.none), rounds("ift")],
    ids=["off", "no such data"],
)
def test_without_eft_the_ift_round_makes_m1(found: list[Round]) -> None:
    assert told(found) == [("ift", "M1", ()), ("iter-01", "M2", ()), ("iter-02", "M3", ())]


def test_ranked_replies_that_are_not_there_are_missed() -> None:
    with pytest.raises(UserError, match=r"data\.ranked=0\.3"):
        rounds("ift", "eft", source=EftSource.ranked)


def test_no_iterations_end_at_m1() -> None:
    assert [r.makes for r in rounds("eft", iterations=0)] == ["sft", "M1"]


def test_configs_do_not_share_their_rounds() -> None:
    one, other = SelfRewardingConfig(), SelfRewardingConfig()
    one.ift.optimizer["lr"] = 1.0
    assert "lr" not in other.ift.optimizer


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """``composed(*overrides)``: the recipe as Hydra composes it from the built-in plugins' schemas."""
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    found = collect([point for point in entry_points(group="selfreward") if point.dist.name == "selfreward"], {})
    assert found.broken == {}
    register_schemas(found)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: OmegaConf.to_container(compose("recipe/self_rewarding", list(overrides)).recipe)


def test_it_composes_whole_rounds(composed: Callable[..., dict[str, Any]]) -> None:
    recipe = composed()
    assert recipe["name"] == "self_rewarding"
    assert recipe["eft"]["source"] == "file"
    defaults = SelfRewardingConfig()
    for name in ("ift", "eft", "eft_ranked"):
        for stage in (*STAGES, "pair_filters"):
            chosen = getattr(getattr(defaults, name), stage)
            assert {k for k in chosen if k != "score_balance"} <= recipe[name][stage].keys()
            same = {k: v for k, v in chosen.items() if isinstance(v, str)}
            assert same.items() <= recipe[name][stage].items()
        assert {"lr", "epochs"} <= recipe[name]["optimizer"].keys()  # every option is there to be overridden
    assert recipe["ift"].keys() == vars(defaults.ift).keys()


def test_a_seed_rounds_option_is_its_own(composed: Callable[..., dict[str, Any]]) -> None:
    recipe = composed("recipe.ift.optimizer.lr=0.5")
    assert recipe["ift"]["optimizer"]["lr"] == 0.5 != recipe["eft"]["optimizer"]["lr"]
