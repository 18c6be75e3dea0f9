"""``execution=isolated`` with real children: the same bytes, children that die, several processes that train."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

TINY = [
    "experiment=micro_fast", "evaluators=[]", "monitors=[]", "data.ift=81", "recipe.eft.source=none",
    "prompt_generator.n=48", "sampler.max_new_tokens=24", "judge.max_new_tokens=48", "shard_size=4",
]  # fmt: skip
TABLES = ("*.parquet", "*.safetensors")
pytestmark = pytest.mark.xdist_group("isolation")


class Run:
    """``python -m selfreward`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def start(self, *arguments: str, program: tuple[str, ...] = ("-m", "selfreward")) -> subprocess.Popen:
        command = [sys.executable, *program, *TINY, "run_dir=run", "store.path=store", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *arguments: str, **how: tuple[str, ...]) -> tuple[int, str, str]:
        process = self.start(*arguments, **how)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    def take(self, other: Run, without: tuple[str, ...] = ()) -> None:
        """A copy of another run's store, without the artifacts of some stages."""
        shutil.copytree(other.folder / "store", self.folder / "store", ignore=shutil.ignore_patterns(*without))

    def children(self, process: subprocess.Popen) -> list[psutil.Process]:
        found = psutil.Process(process.pid).children(recursive=True)
        return [
            p for p in found if p.status() != psutil.STATUS_ZOMBIE and "selfreward.core.commands.worker" in p.cmdline()
        ]

    def wait_until(self, there: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
        ends = time.monotonic() + seconds
        while not there():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < ends, "it never came so far"
            time.sleep(0.02)

    def files(self) -> dict[str, bytes]:
        store = self.folder / "store"
        return {str(p.relative_to(store)): p.read_bytes() for each in TABLES for p in sorted(store.rglob(each))}

    def journals(self, stage: str) -> list[Path]:
        return list((self.folder / "store" / stage).glob("*/journal.jsonl"))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("inline") / "inline")
    code, _, err = run("iterations=1", "execution=inline")
    assert code == 0, err
    return run


@pytest.fixture
def isolated(tmp_path: Path) -> Run:
    return Run(tmp_path / "isolated")


NOTING_MEMORY = """
import psutil, sys
from selfreward.core.cli import main
from selfreward.core.run.announcer import Announcer
from selfreward.core.run.engines import EngineRoom
sizes = []
event = Announcer.event
def noted(self, what, **facts):
    sizes.append(psutil.Process().memory_info().rss)
    event(self, what, **facts)
def opened(self, model):
    raise AssertionError("the parent opens no engine")
Announcer.event = noted
EngineRoom._opened = opened
assert main(sys.argv[1:]) == 0
print((max(sizes) - sizes[2]) / 1e6)  # from the first stage on, when all libraries are imported
"""


def test_children_make_the_same_bytes_in_the_same_order_and_the_parent_stays_small(inline: Run, isolated: Run) -> None:
    code, out, err = isolated("iterations=1", "execution=isolated", program=("-c", NOTING_MEMORY))
    assert code == 0, err
    assert isolated.files() == inline.files()
    told = re.findall(r"^  (prompts|candidates|judgements|training set|model) +\d+", out, re.MULTILINE)
    assert told == ["prompts", "candidates", "judgements", "training set", "model"] * 2
    assert "reused" not in out  # the child made them in this run
    logs = sorted(p.name for p in (isolated.folder / "run" / "logs").iterdir())
    assert logs == ["01-train.log", "02-generate.log", "03-train.log"]  # one load for prompts, answers and verdicts
    metrics = json.loads((isolated.folder / "run" / "metrics.json").read_text())
    busy = [m["value"] for m in metrics if m["metric"] == "engine_busy"]
    assert len(busy) == 1
    assert 0.5 < busy[0] <= 1
    assert float(out.split()[-1]) < 20  # megabytes: tables come and go, no model is ever loaded
    _, again, _ = isolated("iterations=1", "execution=isolated")
    assert again.count("reused") == 10


def test_a_child_that_dies_is_told_with_its_last_lines_and_the_run_goes_on(inline: Run, isolated: Run) -> None:
    isolated.take(inline, without=("candidates", "judgements"))
    process = isolated.start("iterations=1", "execution=isolated")
    log = isolated.folder / "run" / "logs" / "01-generate.log"
    isolated.wait_until(lambda: log.exists() and bool(isolated.journals("candidates")), process)
    [child] = isolated.children(process)
    child.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the child process that generates was ended by SIGKILL (out of memory?)" in err
    assert "the same command goes on" in err
    assert "01-generate.log" in err
    assert "Traceback" not in err
    code, out, err = isolated("iterations=1", "execution=isolated")
    assert code == 0, err
    assert "reused" in out
    assert isolated.files() == inline.files()


def test_children_end_with_the_process_that_started_them(isolated: Run) -> None:
    process = isolated.start("iterations=1", "execution=isolated", "launch.processes=2")
    isolated.wait_until(lambda: len(isolated.children(process)) >= 3, process)  # the launcher and two workers
    started = isolated.children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def test_two_processes_train_the_model_that_one_trains(inline: Run, isolated: Run) -> None:
    from safetensors.numpy import load_file

    code, out, err = isolated("iterations=0", "execution=isolated", "launch.processes=2")
    assert code == 0, err
    [path] = (isolated.folder / "store" / "model").glob("*/model.safetensors")
    ours, theirs = load_file(path), load_file(inline.folder / "store" / path.relative_to(isolated.folder / "store"))
    difference = max(float(abs(ours[name] - theirs[name]).max()) for name in theirs)
    assert 0 < difference < 1e-5  # other sums, the same model
    assert "80 rows" in out  # a multiple of the batch: accelerate fills an uneven last batch up


def test_what_a_child_refuses_is_told_as_if_there_were_none(isolated: Run) -> None:
    code, _, err = isolated("iterations=0", "execution=isolated", "optimizer.lr=1e30", "recipe.ift.optimizer.lr=1e30")
    assert code == 3
    assert "diverged" in err or "not finite" in err
    assert "Traceback" not in err


def test_an_accelerate_config_that_is_not_there_is_refused(cli: Callable) -> None:
    done = cli("execution=isolated", "launch.config=fsdp.yaml")
    assert done.code == 2
    assert "launch.config=fsdp.yaml: no such file" in done.err


def test_two_processes_sample_judge_and_learn_what_one_does_by_ppo(inline: Run, tmp_path: Path) -> None:
    """Each has half of the prompts and an engine of its own; one batch, all of it in a step, so that orders agree."""
    from safetensors.numpy import load_file

    online = [
        "optimizer=ppo", "prompt_generator=dataset", "prompt_generator.n=16", "sampler.n=2",
        "sampler.top_p=1", "optimizer.rollouts=16", "optimizer.batch_size=32", "optimizer.epochs=1",
        "optimizer.ppo_epochs=2", "optimizer.stop_kl=0",
    ]  # fmt: skip
    alone, both = Run(tmp_path / "alone"), Run(tmp_path / "both")
    for run in (alone, both):
        run.take(inline)
    assert alone("iterations=1", *online)[0] == 0
    code, out, err = both("iterations=1", *online, "execution=isolated", "launch.processes=2")
    assert code == 0, err
    assert "brings its partner: selector=prompts" in out
    models = [{path.parent.name for path in r.folder.glob("store/model/*/model.safetensors")} for r in (alone, both)]
    [name] = models[0] - {path.parent.name for path in inline.folder.glob("store/model/*/model.safetensors")}
    assert models[0] == models[1]
    ours, theirs = (load_file(run.folder / "store" / "model" / name / "model.safetensors") for run in (alone, both))
    assert 0 < max(float(abs(ours[weight] - theirs[weight]).max()) for weight in theirs) < 2e-5  # other sums
