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


def test_a_checkpoint_is_measured_as_in_the_loop_and_only_that(here: Callable, tmp_path: Path) -> None:
    done = here("evaluate", "evaluators=[oracle,judge_agreement]", *SMALL)
    assert done.code == 0, done.err
    found = figures(tmp_path / "run")
    assert found["oracle", "true_score"]["n"] == 12
    assert {m["model"] for m in found.values()} == {"M0"}
    assert not (tmp_path / "store" / "model").exists()
    again = here("evaluate", "evaluators=[oracle]", *SMALL)
    assert "reused" in again.out


def test_two_models_are_told_apart(here: Callable, tmp_path: Path) -> None:
    """Head to head against a folder: the same checkpoint under another name ties with itself."""
    from selfreward import ModelConfig

    folder = MicroModel(ModelConfig()).path()
    done = here("evaluate", "evaluators=[head_to_head]", f"evaluators.head_to_head.against={folder}", *SMALL)
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
def test_what_cannot_be_measured_is_refused(here: Callable, arguments: list[str], told: str) -> None:
    done = here("evaluate", *arguments)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_no_data_has_no_held_out_prompts_to_answer(here: Callable, tmp_path: Path) -> None:
    done = here("evaluate", "evaluators=[oracle]", "run_dir=run", "monitors=[]")
    assert done.code == 0, done.err
    assert figures(tmp_path / "run") == {}
