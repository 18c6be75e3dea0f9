"""SFT, reward model, PPO; and how often."""

from __future__ import annotations

import pytest

from selfreward import UserError
from selfreward.core.cli import run_config
from selfreward.core.run.run import Run
from selfreward.testing import Rows


def rounds(*overrides: str):
    run = Run(run_config(["recipe=rlhf", *overrides]))
    return list(run.rounds())


def test_classic_rlhf_is_three_rounds():
    sft, reward, ppo = rounds()
    assert [(r.name, r.makes, r.makes_reward, r.online) for r in (sft, reward, ppo)] == [
        ("sft", "sft", False, False),
        ("reward", "R1", True, False),
        ("loop", "M1", False, True),
    ]
    assert (reward.selector.name, reward.optimizer.name, reward.optimizer.config.init_from) == (
        "all_pairs", "reward_model", "sft",
    )  # fmt: skip
    assert (ppo.judge.name, ppo.judge.config.model, ppo.optimizer.name) == ("reward_model", "reward", "ppo")
    assert (ppo.optimizer.config.reference, ppo.optimizer.config.init_from) == ("sft", "policy")
    assert (ppo.sampler.config.top_p, ppo.prompt_generator.name) == (1.0, "dataset")


def test_iterated_rlhf_compares_fresh_answers_and_keeps_all_comparisons():
    made = rounds("recipe.repeats=3", "iterations=2", "recipe.fresh.judge=length")
    assert [r.makes for r in made] == ["sft", "R1", "M1", "M2", "R2", "M3", "M4", "R3", "M5", "M6"]
    assert [r.folder for r in made if r.online] == [f"iter-0{n}" for n in range(1, 7)]
    second, third = (r for r in made if r.makes in ("R2", "R3"))
    assert (second.train_on, third.train_on) == (("reward",), ("reward", "reward-2"))
    assert (second.sampler.name, second.sampler.config.model, second.judge.name) == ("nucleus", "policy", "length")


def test_the_loop_is_still_the_command_lines():
    *_, loop = rounds("optimizer=dpo", "selector=best_worst", "judge=oracle")
    assert (loop.optimizer.name, loop.judge.name, loop.online) == ("dpo", "oracle", False)


def test_data_without_comparisons_is_refused():
    run = Run(run_config(["recipe=rlhf"]))
    with pytest.raises(UserError, match=r"data\.ranked=0\.5"):
        list(run.config.choices["recipe"].build().rounds(run.loop_round(), 1, Rows()))


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        ("hh_rlhf", "hh_rlhf/harmless-base_test.jsonl.gz"),
        ("oasst", "oasst/oasst1_en-validation.jsonl.gz"),
        ("pandalm", "pandalm"),
    ],
)
def test_any_format_of_comparisons_will_do(reader, file, shared_data):
    path = shared_data / file
    path = next(path.glob("*.json*")) if path.is_dir() else path
    made = rounds(f"data={reader}", f"data.path={path}", "data.ranked=0.5")
    assert [r.makes for r in made] == ["sft", "R1", "M1"]
    data = Run(run_config([f"data={reader}", f"data.path={path}", "data.ranked=0.5"])).resources.data
    ranked = data.split("ranked", 0)
    assert len(ranked) > 50
    assert all(len({c.rank for c in row.candidates}) > 1 for row in ranked)
    assert not {r.prompt.prompt_id for r in ranked} & {r.prompt.prompt_id for r in data.split("ift", 0)}
