"""Training that was killed goes on from its last whole checkpoint and ends with the bytes of an undisturbed one.

Kills are real. This file is also a program: it forks trainings that die by SIGKILL at a step, before their n-th touch
of the file system, or after a time, or by the kernel's hand in the middle of a file that grows past a size (SIGXFSZ).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfreward import Demonstration, LoraOptions, ModelConfig, ModelRef, Preference, TrainingContext, TrainingSet
from selfreward.core.store.artifacts import Key, Store
from selfreward.plugins.optimizers.kto import Kto, KtoConfig
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig, Ipo, IpoConfig
from selfreward.plugins.optimizers.reference_free import Orpo, OrpoConfig, Simpo, SimpoConfig
from selfreward.plugins.optimizers.reward_model import RewardModel, RewardModelConfig
from selfreward.plugins.optimizers.sft import Sft, SftConfig
from selfreward.plugins.optimizers.training.checkpoints import SEAL, delete_torn, last_checkpoint, seal_checkpoint

EVERY = 3
"""Steps between checkpoints."""


# ------------------------------------------------------------------------------------------------ the program that dies


@dataclass(frozen=True)
class Case:
    """A training: 22 rows in batches of 4, 2.5 times, that is 15 steps; the second epoch begins after step 6."""

    plugin: type[Any]
    config: Any
    lora: int = 0


COMMON: dict[str, Any] = {"lr": 3e-3, "epochs": 2.5, "batch_size": 4, "dropout": 0.2, "checkpoint_steps": EVERY}
CASES = {
    "sft": Case(Sft, SftConfig(**COMMON)),
    "sft_random_order": Case(Sft, SftConfig(**COMMON, group_by_length=False, gradient_accumulation=2)),
    "dpo_lora": Case(Dpo, DpoConfig(**COMMON, nll=0.1), lora=4),
    "dpo": Case(Dpo, DpoConfig(**COMMON, gradient_accumulation=2)),
    "ipo": Case(Ipo, IpoConfig(**COMMON)),
    "kto": Case(Kto, KtoConfig(**COMMON | {"batch_size": 8}, replay=0.1)),
    "simpo_lora": Case(Simpo, SimpoConfig(**COMMON), lora=4),
    "orpo": Case(Orpo, OrpoConfig(**COMMON, replay=0.1)),
    "reward_lora": Case(RewardModel, RewardModelConfig(**COMMON), lora=4),
}
UNLIKE_DPO = ("kto", "simpo_lora", "orpo", "reward_lora")
"""Losses with trainers of their own; KTO has 44 rows in batches of 8."""
STEPS = 15
EARLY: dict[str, Any] = COMMON | {"epochs": 12, "holdout": 0.3, "eval_steps": 2, "patience": 2}
STOPPING = {
    "sft_stop": Case(Sft, SftConfig(**EARLY | {"lr": 2e-2})),
    "dpo_lora_stop": Case(Dpo, DpoConfig(**EARLY | {"lr": 2e-2}, nll=0.1), lora=4),
    "ipo_stop": Case(Ipo, IpoConfig(**EARLY | {"lr": 6e-3}, replay=0.1)),
}
"""Trainings on 15 rows that end before their 48 steps: measured on the other 7 every 2 steps, best weights kept."""
STOPS = {"sft_stop": (5, 15, 17), "ipo_stop": (5, 8), "dpo_lora_stop": (13, 19)}
"""Steps at which trainings that end early are killed: before the best step, after it, at the last one."""


def rows(plugin: type[Any]) -> list[Any]:
    """Rows of many lengths, so that the order of the rows decides which ones share a batch."""
    turns = [[{"role": "user", "content": f"count:{n}"}] for n in range(22)]
    answers = [[{"role": "assistant", "content": "x" * (n * 7 % 22 + 1) + str(n)}] for n in range(44)]
    if plugin is Sft:
        return [Demonstration(turns[n], answers[n], 5.0, [], f"p{n}", "c") for n in range(22)]
    return [Preference(turns[n], answers[n], answers[n + 22], 4.0, 1.0, [], [], f"p{n}", "c", "d") for n in range(22)]


def train(case: Case, root: Path, models: list[str], told: Callable[[int], None]) -> None:
    """Train as the core does: into an artifact whose ``work`` outlives a kill."""
    artifact = Store(root).artifact(Key("model", {}))
    config = ModelConfig(lora=LoraOptions(r=case.lora, alpha=8.0, dropout=0.1))
    start, reference = (ModelRef("M1", model, model, config) for model in models)
    table = rows(case.plugin)

    replayed = rows(Sft)[:9]

    def fill(out: Path, work: Path) -> Mapping[str, float]:
        replay = TrainingSet(Demonstration, len(replayed), lambda: iter(replayed))
        context = TrainingContext(start, reference, out, work, 7, lambda done, total, figures: told(done), replay)
        return case.plugin(case.config).update(TrainingSet(type(table[0]), len(table), lambda: iter(table)), context)

    if not artifact.is_finished():
        artifact.write_folder(fill)


def attempt(case: Case, root: Path, models: list[str], kill: Mapping[str, float]) -> tuple[int, list[int]]:
    """Train in a child that dies as ``kill`` says; returns its exit code and the steps it told."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            train(case, root, models, dying(root, kill, writer))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = [int(line) for line in pipe]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def dying(root: Path, kill: Mapping[str, float], writer: int) -> Callable[[int], None]:
    """Is told of each step; from ``step`` on it dies: at once, or at an ``event``, a ``size``, or a ``time`` in s."""
    left = kill.get("event", 0)
    armed = False

    def die(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if armed and name in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            # a tree is deleted by names relative to a folder's descriptor
            left -= str(arguments[0]).startswith(str(root)) or name in ("os.remove", "os.rmdir")
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def told(step: int) -> None:
        if step:
            os.write(writer, f"{step}\n".encode())
        if kill and not armed and step >= kill["step"]:
            arm()

    def arm() -> None:
        nonlocal armed
        armed = True
        if "event" in kill:
            sys.addaudithook(die)
        elif "size" in kill:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; the kernel's default is to kill
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(kill["size"]),) * 2)
        elif "time" in kill:
            threading.Thread(target=lambda: (time.sleep(kill["time"]), os.kill(os.getpid(), signal.SIGKILL))).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    told(0)
    return told


def main(request: Mapping[str, Any]) -> None:
    """Train every scene to its end through all its kills; print the exit codes and told steps of the attempts."""
    import torch

    for module in ("datasets", "peft", "trl"):  # what is imported here is not imported in every child
        importlib.import_module(module)
    torch.set_num_threads(1)
    gc.freeze()  # and not walked through by every child's collector
    attempts: dict[str, list[tuple[int, list[int]]]] = {}
    for name, scene in request["scenes"].items():
        case = (CASES | STOPPING)[scene["case"]]
        case = replace(case, config=replace(case.config, **scene.get("options", {})))
        attempts[name] = [
            attempt(case, Path(request["root"]) / name, request["models"], kill) for kill in [*scene["kills"], {}]
        ]
    print(json.dumps(attempts))


# ---------------------------------------------------------------------------------------------------------------- tests


@dataclass(frozen=True)
class Scenes:
    """Trainings that went through all their kills."""

    root: Path
    attempts: dict[str, list[tuple[int, list[int]]]]

    def content(self, name: str) -> dict[str, bytes]:
        """Every file of the artifact that came out: weights, tokenizer, and the manifest with the figures."""
        [manifest] = (self.root / name).glob("model/*/manifest.json")
        return {path.name: path.read_bytes() for path in manifest.parent.iterdir()}

    def went_on_from(self, name: str) -> list[int]:
        """The step that each attempt but the first found done; 0 where it began anew."""
        return [(0 if told[0] == 1 else told[0]) if told else STEPS for _, told in self.attempts[name][1:]]


@pytest.fixture(scope="module")
def play(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, other_checkpoint: Path
) -> Callable[[Mapping[str, Any]], Scenes]:
    """Plays scenes in a program of its own; every one must end well after its kills."""

    def run(scenes: Mapping[str, Any]) -> Scenes:
        root = tmp_path_factory.mktemp("scenes")
        request = {"root": str(root), "models": [str(checkpoint), str(other_checkpoint)], "scenes": scenes}
        command = [sys.executable, __file__]
        one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, env=os.environ | one_thread, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "missing keys" not in done.stderr
        attempts = json.loads(done.stdout)
        for name, ends in attempts.items():
            *killed, (last, _) = ends
            assert last == 0, f"{name}: {done.stderr[-4000:]}"
            # a time may be longer than the training
            allowed = {-signal.SIGKILL, -signal.SIGXFSZ} | ({0} if "time" in str(scenes[name]["kills"]) else set())
            assert {end for end, _ in killed} <= allowed, name
        return Scenes(root, attempts)

    return run


def scene(case: str, *kills: Mapping[str, float], **options: Any) -> dict[str, Any]:
    return {"case": case, "kills": kills, "options": options}


def at_steps(*steps: int) -> list[dict[str, float]]:
    return [{"step": step} for step in steps]


def assert_like_undisturbed(scenes: Scenes, names: Iterable[str]) -> None:
    for name in names:
        assert scenes.content(name) == scenes.content(name.partition(":")[0]), name


@pytest.fixture(scope="module")
def played(play: Callable[[Mapping[str, Any]], Scenes]) -> Scenes:
    """Scenes of the quick tests; a name without a colon is the undisturbed training that made no checkpoint."""
    return play(
        {case: scene(case, checkpoint_steps=0) for case in ("sft", "dpo_lora", *UNLIKE_DPO)}
        | {"sft:3": scene("sft")}
        | {f"{case}:recomputed": scene(case, gradient_checkpointing=True) for case in ("sft", "dpo_lora")}
        | {"sft:killed": scene("sft", *at_steps(2, 4, 11)), "dpo_lora:killed": scene("dpo_lora", *at_steps(10, 14))}
        | {f"{case}:killed": scene(case, *at_steps(8)) for case in UNLIKE_DPO}
        | {"sft:size": scene("sft", {"step": 5, "size": 120_000})}
        | {f"sft:event {event}": scene("sft", {"step": 5, "event": event}) for event in (9, 34)}
        | {case: scene(case, checkpoint_steps=0) for case in ("sft_stop", "ipo_stop")}
        | {f"{case}:killed": scene(case, *at_steps(*STOPS[case])) for case in ("sft_stop", "ipo_stop")}
    )


def test_checkpoints_change_no_byte_and_neither_does_recomputing(played):
    names = ("sft:3", "sft:recomputed", "dpo_lora:recomputed")
    assert_like_undisturbed(played, names)
    assert {tuple(told) for name in names for _, told in played.attempts[name]} == {tuple(range(1, STEPS + 1))}
    assert played.content("sft") != played.content("dpo_lora")


def test_killed_between_steps_it_goes_on_to_the_same_bytes(played):
    """Before the first checkpoint; going on in the first epoch, at its end, in the second, and in the half one."""
    unlike_dpo = [f"{case}:killed" for case in UNLIKE_DPO]
    assert_like_undisturbed(played, ("sft:killed", "dpo_lora:killed", *unlike_dpo))
    assert played.went_on_from("sft:killed") == [0, 3, 9]
    assert played.went_on_from("dpo_lora:killed") == [9, 12]
    assert all(played.went_on_from(name) == [6] for name in unlike_dpo)


def test_killed_in_the_middle_of_a_checkpoint_the_one_before_counts(played):
    """In the middle of the optimizer's file, between files, and after the seal of the checkpoint of step 6."""
    names = ("sft:size", "sft:event 9", "sft:event 34")
    assert_like_undisturbed(played, names)
    assert [played.went_on_from(name) for name in names] == [[3], [3], [6]]


def assert_ended_early(scenes: Scenes, ends: Mapping[str, tuple[int, int, int]]) -> None:
    """With the best weights, those of the step that is given first, after as many steps as is given second."""
    figures = {case: json.loads(scenes.content(case)["manifest.json"])["figures"] for case in ends}
    assert {case: (f["best_step"], f["steps"], f["stopped_early"]) for case, f in figures.items()} == ends


def test_what_ends_early_keeps_the_best_weights_however_often_it_was_killed(played):
    assert_like_undisturbed(played, ("sft_stop:killed", "ipo_stop:killed"))
    assert_ended_early(played, {"sft_stop": (14, 18, 1), "ipo_stop": (4, 8, 1)})
    assert played.went_on_from("sft_stop:killed") == [4, 14, 15]
    assert played.went_on_from("ipo_stop:killed") == [4, 6]


@pytest.mark.chaos
def test_what_ends_early_killed_while_the_best_weights_are_saved_or_loaded(play):
    scenes = play(
        {case: scene(case, checkpoint_steps=0) for case in ("sft_stop", "dpo_lora_stop")}
        | {"dpo_lora_stop:killed": scene("dpo_lora_stop", *at_steps(*STOPS["dpo_lora_stop"]))}
        | {"sft_stop:only best": scene("sft_stop", *at_steps(15, 17), checkpoint_steps=0)}
        | {f"sft_stop:14, {n}": scene("sft_stop", {"step": 14, "event": n}) for n in range(1, 60, 4)}
        | {f"sft_stop:end, {n}": scene("sft_stop", {"step": 18, "event": n}) for n in (1, 4, 8, 14, 20)}
    )
    assert_like_undisturbed(scenes, scenes.attempts)
    assert_ended_early(scenes, {"sft_stop": (14, 18, 1), "dpo_lora_stop": (16, 20, 1)})
    assert scenes.went_on_from("dpo_lora_stop:killed") == [12, 18]
    assert scenes.went_on_from("sft_stop:only best") == [14, 14]


@pytest.mark.chaos
def test_killed_at_any_touch_of_the_file_system(play):
    """Of a checkpoint and of the clearing after it, of the saving at the end, and of the start after a torn one."""
    during, end, again = range(1, 42, 2), range(1, 42, 5), range(1, 60, 7)
    moments = {f"sft:6, {n}": [{"step": 5, "event": n}] for n in during}
    moments |= {f"sft:end, {n}": [{"step": STEPS, "event": n}] for n in end}
    moments |= {f"sft:again, {n}": [{"step": 5, "event": 26}, {"step": 0, "event": n}] for n in again}
    scenes = play(
        {"sft": scene("sft", checkpoint_steps=0)} | {name: scene("sft", *kills) for name, kills in moments.items()}
    )
    assert_like_undisturbed(scenes, scenes.attempts)
    found = [scenes.went_on_from(f"sft:6, {n}")[0] for n in during]
    assert found == sorted(found)
    assert set(found) == {3, 6}
    assert {scenes.went_on_from(f"sft:end, {n}")[0] for n in end} == {12, STEPS}


@pytest.mark.chaos
def test_killed_at_any_time_and_again(play):
    chance = random.Random(0)
    every = CASES | STOPPING
    times = {case: [{"step": 0, "time": chance.uniform(0.2, 1.0)} for _ in range(4)] for case in every}
    scenes = play(
        {case: scene(case, checkpoint_steps=0) for case in every}
        | {"sft:200": scene("sft", checkpoint_steps=200)}
        | {f"{case}:steps": scene(case, *at_steps(4, 8, 10, 14)) for case in CASES}
        | {f"{case}:times": scene(case, *times[case]) for case in every}
        | {f"sft:size {4**n}": scene("sft", {"step": 5, "size": 4**n}) for n in range(9)}
    )
    assert_like_undisturbed(scenes, scenes.attempts)
    assert all(scenes.went_on_from(f"{case}:steps") == [3, 6, 9, 12] for case in CASES)


def test_no_checkpoint_is_made_where_none_is_wanted(context, update, demonstration):
    made = context()
    update(Sft(SftConfig(epochs=3, checkpoint_steps=0)), [demonstration("a", "b")], made)
    assert list(made.work.glob("checkpoint-*")) == []


# ---------------------------------------------------------------------------------------------------------------- seals


@pytest.fixture
def sealed(tmp_path) -> Path:
    """A folder with sealed checkpoints of the steps 9 and 10."""
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "inner").mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(bytes(range(256)) * step)
        (folder / "inner" / "state").write_text(f"step {step}")
    for step in (10, 9):  # sealing deletes the others
        kept = tmp_path / f"checkpoint-{step}"
        others = [
            path.rename(tmp_path / f"hidden-{path.name}") for path in tmp_path.glob("checkpoint-*") if path != kept
        ]
        seal_checkpoint(kept)
        for path in others:
            path.rename(tmp_path / path.name.removeprefix("hidden-"))
    return tmp_path


def test_the_newest_whole_checkpoint_is_kept(sealed):
    (sealed / "checkpoint-11").mkdir()  # not sealed
    delete_torn(sealed)
    assert [path.name for path in sealed.iterdir()] == ["checkpoint-10"]
    assert last_checkpoint(sealed) == sealed / "checkpoint-10"


def test_sealing_deletes_what_was_before(sealed):
    (sealed / "checkpoint-11").mkdir()
    (sealed / "checkpoint-11" / "state").write_text("step 11")
    (sealed / "kept.txt").touch()
    seal_checkpoint(sealed / "checkpoint-11")
    assert sorted(path.name for path in sealed.iterdir()) == ["checkpoint-11", "kept.txt"]


@pytest.mark.parametrize("harmed", [9, 10, None])
def test_the_best_checkpoint_stays_and_without_it_there_is_no_going_on(harmed, tmp_path):
    for step in (8, 9, 10):  # the second one is the best
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_bytes(bytes(step))
        (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": min(step, 9)}))
        seal_checkpoint(checkpoint)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}
    if harmed:
        harm(tmp_path / f"checkpoint-{harmed}" / "optimizer.pt", "cut")
    delete_torn(tmp_path)
    left: dict[int | None, list[int]] = {9: [], 10: [9], None: [9, 10]}
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in left[harmed]}
    assert last_checkpoint(tmp_path) == (tmp_path / f"checkpoint-{left[harmed][-1]}" if left[harmed] else None)


def harm(path: Path, how: str) -> None:
    data = path.read_bytes()
    place = len(data) // 2
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    path.write_bytes({"cut": data[:-1], "flipped": flipped, "empty": b"", "longer": data + b"0"}.get(how, data))
    if how == "missing":
        path.unlink()


@pytest.mark.parametrize("name", ["optimizer.pt", "inner/state", SEAL])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped", "empty", "longer"])
def test_a_harmed_checkpoint_is_never_taken_for_whole(sealed, name, how):
    harm(sealed / "checkpoint-10" / name, how)
    delete_torn(sealed)
    assert last_checkpoint(sealed) == sealed / "checkpoint-9"
    harm(sealed / "checkpoint-9" / name, how)
    delete_torn(sealed)
    assert last_checkpoint(sealed) is None


@pytest.mark.parametrize("text", ["[]", "{}", "null", "3", '{"optimizer.pt": 3}', '{"inner": "x"}', '"\\ud800"'])
def test_a_seal_that_is_none(sealed, text):
    (sealed / "checkpoint-10" / SEAL).write_text(text)
    delete_torn(sealed)
    assert last_checkpoint(sealed) == sealed / "checkpoint-9"


if __name__ == "__main__":
    main(json.load(sys.stdin))
