"""``selfreward evaluate``: a checkpoint is measured and nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward.plugins.micro.model import MicroModel

SMALL = ["data=micro", "evaluation.n=12", "data.judge_evaluation=6", "monitors=[]", "run_dir=run"]


def figures(folder: Path) -> dict[tuple[str, str], dict]:
    return {(m["evaluator"], m["metric"]): m for m in json.loads((folder / "metrics.json").read_text())}


def test_a_checkpoint_is_measured_as_in_the_loop_and_only_that(cli: Callable, tmp_path: Path) -> None:
    done = cli("evaluate", "evaluators=[oracle,judge_agreement]", *SMALL)
    assert done.code == 0, done.err
    found = figures(tmp_path / "run")
    assert found["oracle", "true_score"]["n"] == 12
    assert {m["model"] for m in found.values()} == {"M0"}
    assert not (tmp_path / "store" / "model").exists()
    again = cli("evaluate", "evaluators=[oracle]", *SMALL)
    assert "reused" in again.out


def test_two_models_are_told_apart(cli: Callable, tmp_path: Path) -> None:
    """Head to head against a folder: the same checkpoint under another name ties with itself."""
    from selfreward import ModelConfig

    folder = MicroModel(ModelConfig()).path()
    done = cli("evaluate", "evaluators=[head_to_head]", f"evaluators.head_to_head.against={folder}", *SMALL)
    assert done.code == 0, done.err
    found = figures(tmp_path / "run")
    assert found["head_to_head", "tie"]["value"] + found["head_to_head", "win"]["value"] <= 1
    assert found["head_to_head", "win"]["n"] == 12


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say what to measure: evaluators=[NAME,...] ("),
        (["evaluators=[oracel]"], "did you mean 'oracle'?"),
        (["evaluators=[oracle]", "model=hf", "model.path=nowhere"], "model.path=nowhere: no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(cli: Callable, arguments: list[str], told: str) -> None:
    done = cli("evaluate", *arguments)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_no_data_has_no_held_out_prompts_to_answer(cli: Callable, tmp_path: Path) -> None:
    done = cli("evaluate", "evaluators=[oracle]", "run_dir=run", "monitors=[]")
    assert done.code == 0, done.err
    assert figures(tmp_path / "run") == {}
