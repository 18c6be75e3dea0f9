"""Accuracy of a reward model: published figures of a reward that is known, and a real model against float64 by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from selfreward import Metric, ModelConfig, ModelRef, Plugin
from selfreward.plugins.evaluators.pair_accuracy import Ties
from selfreward.plugins.evaluators.reward_accuracy import RewardAccuracy, RewardAccuracyConfig
from selfreward.testing import Rows, ScriptedContext, check_plugin

ROWS = [
    {"source": "helpful", "instruction": "Name a fox.", "chosen": "Rex the fox.", "rejected": "No."},
    {"source": "helpful", "instruction": "Name a fox.", "chosen": "Rex the fox.", "rejected": "A fox, a fox."},
    {"source": "honest", "instruction": "Name a bird.", "chosen": "Bo.", "rejected": "No idea at all."},
    {"source": "honest", "instruction": "Are you old?", "chosen": "No.", "rejected": "No."},
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of the four pairs."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


def measured(context: Any, **options: Any) -> dict[str, Metric]:
    return {metric.metric: metric for metric in RewardAccuracy(RewardAccuracyConfig(**options)).evaluate(context)}


@pytest.mark.parametrize(
    ("file", "options", "percent", "n"),
    [
        ("hh_rlhf/harmless-base_test.jsonl.gz", {}, {"": 44.6}, 2312),
        ("pandalm/testset-v1.json.gz", {"booleans_as_text": True}, {"": 67.4}, 894),
        (
            "hhh_alignment/derived_pairs.jsonl",
            {},
            {"": 63.3, "_helpful": 70.3, "_harmless": 62.1, "_honest": 63.9, "_other": 54.7},
            221,
        ),
    ],
)
def test_a_model_that_rewards_length_is_right_as_often_as_published(
    shared_data: Path, file: str, options: dict[str, Any], percent: dict[str, float], n: int
) -> None:
    found = measured(ScriptedContext(), path=str(shared_data / file), **options)
    assert {name: round(100 * found[f"accuracy{name}"].value, 1) for name in percent} == percent
    assert found["accuracy"].n == found["reward_gap"].n == n


def test_figures_by_hand(path: str) -> None:
    context = ScriptedContext()
    found = measured(context, path=path, min_items=1)
    values = {name: metric.value for name, metric in found.items()}
    gaps = [12 - 3, 12 - 13, 3 - 15, 0]
    assert values == pytest.approx(
        {
            "accuracy": 1.5 / 4,
            "accuracy_helpful": 0.5,
            "accuracy_honest": 0.25,
            "ties": 0.25,
            "reward_chosen": (12 + 12 + 3 + 3) / 4,
            "reward_rejected": (3 + 13 + 15 + 3) / 4,
            "reward_gap": fmean(gaps),
        }
    )
    assert found["reward_gap"].low < found["reward_gap"].value < found["reward_gap"].high
    replies = {request.messages[-1]["content"]: sorted(map(str, request.replies)) for request in context.rewarded}
    assert replies["Name a fox."] == ["A fox, a fox.", "No.", "Rex the fox."]  # each once
    assert not context.weighed
    assert not context.requests
    assert measured(ScriptedContext(), path=path, min_items=1, ties=Ties.wrong)["accuracy"].value == 0.25


def test_a_reply_that_does_not_fit_leaves_its_pairs_out(path: str) -> None:
    context = ScriptedContext(worth=lambda reply: None if len(reply) == 13 else float(len(reply)))
    found = measured(context, path=path, min_items=1)
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 3)
    assert (found["reward_gap"].value, found["reward_gap"].n) == (-1.0, 3)
    assert (context.counters["pairs"], context.counters["pairs_left_out"]) == (4, 1)


def test_too_few_pairs_give_no_figure(path: str) -> None:
    found = measured(ScriptedContext(), path=path)
    assert {metric.value for metric in found.values()} == {None}
    assert {metric.value for metric in measured(ScriptedContext(data=Rows())).values()} == {None}


def test_without_a_file_the_data_is_asked(group: Callable[..., Any]) -> None:
    rows = [group("?", "long one", "short", "none", ranks=[0, 1, None]), group("!", "a", "bcd", ranks=[0, 1])]
    found = measured(ScriptedContext(data=Rows(judge_evaluation=rows)), min_items=1)
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 2)
    assert found["reward_gap"].value == pytest.approx((8 - 5 + 1 - 3) / 2)


def test_a_real_reward_model_against_float64(measuring: Callable[..., Any], path: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    m0 = measuring().path
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(m0, num_labels=1)
    model.config.selfreward_reward_shift = 0.75
    model.save_pretrained(tmp_path / "reward")
    chat = ModelRef("M0", str(m0), "m0", ModelConfig()).chat()
    chat.save(tmp_path / "reward")

    context = measuring(path=tmp_path / "reward")
    found = measured(context, path=path, min_items=1)
    model = model.double()
    heads = []
    for row in ROWS:
        asked = chat.encode([{"role": "user", "content": row["instruction"]}])
        with torch.no_grad():
            both = [asked + chat.encode_reply(row[side]) for side in ("chosen", "rejected")]
            heads.append([model(torch.tensor([ids])).logits.item() for ids in both])
    right = sum((a > b) + (a == b) / 2 for a, b in heads)
    assert found["accuracy"].value == right / 4
    assert found["reward_chosen"].value == pytest.approx(fmean(a for a, _ in heads) - 0.75, abs=1e-5)
    assert found["reward_rejected"].value == pytest.approx(fmean(b for _, b in heads) - 0.75, abs=1e-5)
    assert found["reward_gap"].value == pytest.approx(fmean(a - b for a, b in heads), abs=1e-5)


def test_it_measures_reward_models_and_keeps_the_contract() -> None:
    plugin = Plugin(
        "reward_accuracy", "selfreward.plugins.evaluators.reward_accuracy:RewardAccuracy", RewardAccuracyConfig
    )
    assert check_plugin(plugin) is RewardAccuracy
    assert (RewardAccuracy.measures, RewardAccuracy.uses_answers, RewardAccuracy.uses_model) == ("reward", False, True)
