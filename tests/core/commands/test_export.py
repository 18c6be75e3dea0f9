"""``selfreward export``: a real run's model and data, loaded as others load them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selfreward.core.commands.export import export
from selfreward.core.contracts.records import Candidate, Judgement, Preference
from selfreward.core.errors import UserError
from selfreward.core.store.artifacts import Artifact

TINY = [
    "experiment=micro_fast", "iterations=1", "evaluators=[oracle]", "monitors=[]", "recipe.eft.source=none",
    "data.ift=64", "evaluation.n=10", "prompt_generator.n=24", "shard_size=8", "run_dir=run", "store.path=store",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    done = subprocess.run(
        [sys.executable, "-m", "selfreward", *TINY], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def out(run: Path) -> Path:
    export([str(run), str(run.parent / "out")])
    return run.parent / "out"


def card(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


def test_the_dataset_is_what_the_run_made(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import load_dataset

    monkeypatch.setenv("HF_DATASETS_CACHE", str(out.parent / "cache"))
    pairs = load_dataset(str(out / "dataset"), "preferences", split="iter_01", cache_dir=str(out.parent / "cache"))
    rows = list(Artifact.at(run / "iter-01" / "4-training_set").rows(Preference))
    assert [row["chosen_id"] for row in pairs] == [row.chosen_id for row in rows]
    assert pairs[0]["prompt"] == rows[0].prompt
    assert pairs[0]["chosen"] == rows[0].chosen

    judged = load_dataset(str(out / "dataset"), "judgements", split="iter_01", cache_dir=str(out.parent / "cache"))
    answers = {c.candidate_id: c for c in Artifact.at(run / "iter-01" / "2-candidates").rows(Candidate)}
    verdicts = list(Artifact.at(run / "iter-01" / "3-judgements").rows(Judgement))
    assert [row["votes"] for row in judged] == [v.votes for v in verdicts]
    assert [row["response"] for row in judged] == [answers[v.candidate_id].text for v in verdicts]
    assert set(judged["judged_by"]) == {"M1"}
    names = {config["config_name"] for config in card(out / "dataset" / "README.md")["configs"]}
    assert names == {"preferences", "demonstrations", "judgements"}  # people's ranks are no judgements


def test_the_model_is_the_last_one_and_its_card_says_how_it_came_about(run: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = (run / "iter-01" / "5-model" / "model.safetensors").read_bytes()
    assert (out / "model" / "model.safetensors").read_bytes() == trained
    AutoModelForCausalLM.from_pretrained(out / "model")
    assert AutoTokenizer.from_pretrained(out / "model").chat_template
    text = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert card(out / "model" / "README.md")["library_name"] == "transformers"
    for said in ("M2, trained from M1 in round `iter-01`", "| judge | llm_cot |", "True score", "python -m selfreward"):
        assert said in text
    assert str(run.parent) not in text


def test_what_is_there_is_not_written_over(run: Path, out: Path) -> None:
    with pytest.raises(UserError, match="is there and is no empty folder"):
        export([str(run), str(out)])


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        export([str(tmp_path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
