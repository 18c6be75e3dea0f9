"""The whole loop, for real: the embedded model is trained, judged and measured; nothing is replaced."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MODELS = ["M0", "sft", "M1", "M2", "M3"]
CLOCKS = ("seconds", "engine_busy")
pytestmark = pytest.mark.xdist_group("loop")


def run(folder: Path, *overrides: str, timeout: float = 400) -> subprocess.CompletedProcess:
    """``python -m selfreward ...`` in a folder of its own, one thread, with the store that lies there."""
    command = [sys.executable, "-m", "selfreward", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def figures(folder: Path, name: str) -> dict:
    rows = json.loads((folder / name / "metrics.json").read_text())
    return {(row["model"], row["evaluator"], row["metric"]): row for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which ``experiment=micro_fast`` has been run as ``first``."""
    folder = tmp_path_factory.mktemp("micro_fast")
    done = run(folder, "experiment=micro_fast", "run_dir=first")
    assert done.returncode == 0, done.stderr
    (folder / "first.log").write_text(done.stdout)
    return folder


def test_each_model_is_truly_better_than_the_one_before(folder):
    of = figures(folder, "first")
    score = [of[model, "oracle", "true_score"]["value"] for model in ("M1", "M2", "M3")]
    assert score[1] > score[0] + 0.2
    assert score[2] > score[1] + 0.1
    assert of["M3", "oracle", "true_score"]["low"] > of["M1", "oracle", "true_score"]["high"]
    assert of["M3", "oracle", "fluent"]["value"] > of["M1", "oracle", "fluent"]["value"]
    assert of["M3", "head_to_head", "win"]["value"] > of["M3", "head_to_head", "lose"]["value"]


def test_evaluation_fine_tuning_makes_a_judge(folder):
    of = figures(folder, "first")
    assert of["M1", "judge_agreement", "pairwise_accuracy"]["value"] >= 0.8
    assert of["sft", "judge_agreement", "pairwise_accuracy"]["value"] <= 0.72
    assert of["M1", "judge_agreement", "parse_rate"]["value"] > 0.95


def test_metrics_are_tidy_and_complete(folder):
    rows = json.loads((folder / "first" / "metrics.json").read_text())
    assert all(set(row) == {"model", "evaluator", "metric", "value", "low", "high", "n"} for row in rows)
    assert list(dict.fromkeys(row["model"] for row in rows)) == MODELS
    found = {(row["evaluator"], row["metric"]) for row in rows if row["model"] == "M3"}
    agreement = {"pairwise_accuracy", "five_best", "exact_match", "spearman", "kendall_tau", "parse_rate"}
    assert {("judge_agreement", metric) for metric in agreement} <= found
    assert {("oracle", metric) for metric in ("true_score", "fully_correct", "fluent")} <= found
    assert {("head_to_head", metric) for metric in ("win", "tie", "lose")} <= found
    assert {("loop", metric) for metric in ("pair_yield", "response_length", "seconds")} <= found
    for row in rows:
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"], row


def test_self_written_prompts_are_valid_and_new(folder):
    of = figures(folder, "first")
    for model in ("M2", "M3"):
        assert of[model, "loop", "prompts_valid"]["value"] >= 0.85
        assert of[model, "loop", "prompts_novel"]["value"] >= 0.75


def test_each_round_says_which_model_starts_judges_and_is_the_reference(folder):
    log = (folder / "first.log").read_text()
    assert "iter-01: M1 → M2" in log
    assert "prompts self_instruct by M1 · answers nucleus by M1 · judge llm_cot by M1" in log
    assert "best_worst → dpo from M2 (reference M2)" in log
    assert "eft: M0 → M1" in log
    assert "sft from M0, with the set of ift" in log
    assert "/s" in log
    assert "true score" in log


def test_tables_load_with_datasets_and_every_pair_can_be_traced(folder, tmp_path):
    from datasets import load_dataset

    def table(stage):
        files = sorted(str(p) for p in (folder / "first" / "iter-01" / stage).glob("*.parquet"))
        return load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))

    candidates = {row["candidate_id"]: row for row in table("2-candidates")}
    scores = {row["candidate_id"]: row["score"] for row in table("3-judgements")}
    prompts = {row["prompt_id"]: row for row in table("1-prompts")}
    pairs = table("4-training_set")
    assert len(pairs) > 50
    for pair in pairs:
        chosen, rejected = candidates[pair["chosen_id"]], candidates[pair["rejected_id"]]
        assert chosen["prompt_id"] == rejected["prompt_id"] == pair["prompt_id"]
        assert pair["prompt"] == prompts[pair["prompt_id"]]["messages"]
        assert pair["chosen"] == [{"role": "assistant", "content": chosen["text"]}]
        assert chosen["text"] != rejected["text"]
        assert scores[pair["chosen_id"]] > scores[pair["rejected_id"]]
        assert chosen["finish_reason"] == rejected["finish_reason"] == "stop"
        assert chosen["model"] == "M1"


def test_no_held_out_prompt_is_trained_on(folder):
    import pyarrow.parquet as pq

    from selfreward.core.cli import run_config

    data = run_config(["experiment=micro_fast"]).choices["data"].build()
    held_out = {row.prompt.prompt_id for name in ("evaluation", "judge_evaluation") for row in data.split(name, 0)}
    trained = {
        prompt
        for path in (folder / "first").glob("*/4-training_set/*.parquet")
        for prompt in pq.read_table(path)["prompt_id"].to_pylist()
    }
    assert trained
    assert not trained & held_out


def test_the_same_command_again_computes_nothing_and_says_so(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / ".selfreward").rglob("*") if path.is_file()}
    again = run(folder, "experiment=micro_fast", "run_dir=again")
    assert again.returncode == 0, again.stderr
    stages = [
        line
        for line in again.stdout.splitlines()
        if line.startswith("  ") and ("prompts  " in line or "model  " in line)
    ]
    assert stages
    assert all("reused from the store" in line for line in stages)
    first = {key: row for key, row in figures(folder, "first").items() if key[2] != "engine_busy"}  # nothing was run
    assert figures(folder, "again") == first
    changed = {p.name for p, at in before.items() if p.stat().st_mtime_ns != at and "locks" not in p.parts}
    assert not changed


def test_another_selector_shares_everything_up_to_the_judgements(folder):
    done = run(
        folder, "experiment=micro_fast", "run_dir=positive", "selector=positive_only", "iterations=1", "evaluators=[]"
    )
    assert done.returncode == 0, done.stderr
    assert "selector was named alone and brings its partner: optimizer=sft" in done.stdout
    first_iteration = done.stdout.split("iter-01")[1]
    for stage in ("prompts", "candidates", "judgements"):
        line = next(line for line in first_iteration.splitlines() if line.startswith(f"  {stage}  "))
        assert "reused from the store" in line
    assert "positive_only → sft from M1" in first_iteration


def test_show_prints_the_lineage_of_a_prompt(folder):
    listed = run(folder, "show", "first")
    assert listed.returncode == 0
    prompt_id = listed.stdout.split("iter-01")[1].split()[0]
    shown = run(folder, "show", "first/iter-01", prompt_id).stdout
    assert shown.count("candidate ") == 4
    assert "written by M1" in shown
    assert "vote " in shown
    missing = run(folder, "show", "first", "nope")
    assert missing.returncode == 2
    assert "no prompt 'nope'" in missing.stderr


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_ends_with_the_same_tables_and_weights(folder):
    """SIGKILL three times on the way, in a store of its own; then the same command to the end."""
    arguments = ["experiment=micro_fast", "iterations=1", "run_dir=killed", "store.path=killed_store", "shard_size=40"]
    command = [sys.executable, "-m", "selfreward", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    for seconds in (9, 12, 16):
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert run(folder, *arguments).returncode == 0
    arguments[2:4] = ["run_dir=undisturbed", "store.path=undisturbed_store"]
    assert run(folder, *arguments).returncode == 0
    killed, undisturbed = figures(folder, "killed"), figures(folder, "undisturbed")
    assert {key: row for key, row in killed.items() if key[2] not in CLOCKS} == {
        key: row for key, row in undisturbed.items() if key[2] not in CLOCKS
    }
    for stage in ("1-prompts", "2-candidates", "3-judgements", "4-training_set", "5-model"):
        for path in sorted((folder / "undisturbed" / "iter-01" / stage).glob("*")):
            if path.suffix in (".parquet", ".safetensors"):
                other = folder / "killed" / "iter-01" / stage / path.name
                assert path.read_bytes() == other.read_bytes(), path.name
