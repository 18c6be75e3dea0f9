"""Online rounds: what is refused before any work, and what stands in key, rows and table."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from selfreward import UserError, build_report
from selfreward.core.cli import main, run_config
from selfreward.core.run.run import Run
from selfreward.core.runner import run

ONLINE = [
    "data.ift=12", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2", "iterations=1",
    "prompt_generator=dataset", "prompt_generator.n=8", "evaluators=[]", "monitors=[]", "runs_dir=runs",
    "store.path=store", "optimizer=ppo", "optimizer.rollouts=4", "optimizer.epochs=1", "optimizer.ppo_epochs=1",
    "optimizer.batch_size=8", "sampler.n=2", "sampler.top_p=1", "judge=oracle",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_round_of_ppo_from_the_command_line(capsys):
    assert main(ONLINE) == 0
    out = capsys.readouterr().out
    assert "optimizer was named alone and brings its partner: selector=prompts" in out
    assert "answers nucleus by M2 in training · judge oracle · prompts → ppo from M1 (reference M1)" in out
    assert "ppo samples and judges while it trains: no tables of candidates and judgements" in out
    [folder] = run_folder("runs")
    assert sorted(path.name for path in (folder / "iter-01").iterdir()) == ["1-prompts", "4-training_set", "5-model"]
    [shard] = (folder / "iter-01" / "4-training_set").glob("*.parquet")
    assert pq.read_schema(shard).metadata[b"selfreward.record"] == b"Instruction"
    figures = {(m["model"], m["metric"]): m["value"] for m in json.loads((folder / "metrics.json").read_text())}
    assert figures["M2", "training_answers"] == 16
    assert figures["M2", "judge_parse_rate"] == 1.0
    assert {"training_reward", "training_kl", "training_clip_fraction", "training_entropy"} <= {m for _, m in figures}
    assert main(ONLINE) == 0
    assert re.search(r"model +8 rows, reused from the store", capsys.readouterr().out)
    build_report(folder)
    assert main(["show", str(folder)]) == 0
    assert main(["export", str(folder), "out"]) == 0


def run_folder(where):
    return [path.parent for path in Path(where).glob("*/*/config.yaml")]


def key(*overrides: str):
    """Key of the model of the online round, from a dry run."""
    made = Run(run_config([*ONLINE, *overrides, "dry_run=true"]))
    found = []
    finished = made.finish
    made.finish = lambda round, policy, training: (found.append(policy.key), finished(round, policy, training))
    made.start()
    from selfreward.core.loop import align

    align(made)
    return found[-1]


def test_who_samples_and_who_judges_is_part_of_the_models_key():
    plain = key()
    assert key() == plain
    assert key("engine.max_batch_tokens=512") == plain
    for change in ("sampler.temperature=0.9", "sampler.n=3", "judge=length", "optimizer.beta=0.2"):
        assert key(change) != plain, change


REFUSED = {
    "sampler.top_p=0.9": r"optimizer=ppo takes the probability .* set sampler.top_p=1 sampler.top_k=0",
    "sampler.top_k=5": r"sampler.top_k=5 answers are drawn from a part of the distribution only",
    "optimizer=grpo sampler.n=1": r"optimizer=grpo compares the answers to a prompt: sampler.n=1 must be at least 2",
    "candidate_filters=[length]": r"candidate_filters=\[length\] would do nothing",
    "pair_filters=[length_ratio]": r"pair_filters=\[length_ratio\] would do nothing",
    "sampler=human": r"sampler=human has none: sampler=nucleus",
    "engine=server engine.base_url=http://127.0.0.1:1/v1 engine.model=m": r"engine=server cannot run weights",
    "judge=reward_model": r"judge.model=reward: no reward model plays this role in iter-01",
    "judge=llm_cot judge.model=R7": r"judge.model=R7: no model plays this role",
    "optimizer.critic=reward": r"optimizer.critic=reward: no model plays this role in iter-01",
    "sampler.model=base": r"sampler.model=base: optimizer=ppo .* set sampler.model=policy",
    "selector=scored optimizer.init_from=base": r"sampler.model=policy: .* which is optimizer.init_from=base",
    "engine=vllm launch.processes=2": r"launch.processes=2, and engine=vllm would join them",
    "launch.config=fsdp.yaml": r"launch.config=fsdp.yaml: optimizer=ppo .* not under FSDP",
    "selector=best_worst": r"selector=best_worst writes preferences, optimizer=ppo reads prompts or scored",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=REFUSED)
def test_what_cannot_work_is_refused_with_the_mend(overrides):
    if "engine=vllm" in overrides:
        pytest.importorskip("vllm", reason="without vLLM its absence is what is refused")
    Path("fsdp.yaml").write_text("distributed_type: FSDP\n")
    changed = {change.split("=")[0] for change in overrides.split()}
    kept = [o for o in ONLINE if not {o.split("=")[0], o.split(".")[0]} & changed]
    with pytest.raises(UserError, match=REFUSED[overrides]):
        run(run_config([*kept, *overrides.split()]))


def test_scored_answers_make_ppo_staged(capsys):
    staged = [o for o in ONLINE if o != "optimizer=ppo"]
    assert main([*staged, "selector=scored", "optimizer.missing_eos=null"]) == 0
    out = capsys.readouterr().out
    assert "brings its partner: optimizer=ppo" in out
    assert "answers nucleus by M1" in out
    [folder] = run_folder("runs")
    assert (folder / "iter-01" / "3-judgements").exists()


@pytest.mark.chaos
def test_ppo_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    """A real process, SIGKILL after a checkpoint, and the same command again."""
    options = [*ONLINE, "optimizer.epochs=6", "optimizer.checkpoint_steps=2"]
    command = [sys.executable, "-m", "selfreward", *options]
    (tmp_path / "killed").mkdir()
    process = subprocess.Popen(command, cwd=tmp_path / "killed", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ends = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("store/model/*.partial/work/checkpoint-*/state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "whole").mkdir()
    for folder in ("killed", "whole"):
        done = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    killed, whole = (
        {p.relative_to(tmp_path / folder): p.read_bytes() for p in (tmp_path / folder).rglob("store/model/*/*")
         if p.name in ("model.safetensors", "training.jsonl")}
        for folder in ("killed", "whole")
    )  # fmt: skip
    assert len(whole) == 4  # sft, M1, M2 and its log
    assert killed == whole
