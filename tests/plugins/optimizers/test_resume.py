"""Training that was killed goes on from its last whole checkpoint and ends with the bytes of an undisturbed one.

Kills are real. This file is also a program: it forks trainings that die by SIGKILL at a step, before their n-th touch of
the file system, or after a time, or by the kernel's hand in the middle of a file that grows past a size (SIGXFSZ).
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfreward import Demonstration, LoraOptions, ModelConfig, ModelRef, Preference, TrainingContext, TrainingSet
from selfreward.core.store import Artifact, Key, Store
from selfreward.plugins.optimizers.checkpoints import SEAL, delete_torn, last_checkpoint, seal_checkpoint
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig, Ipo, IpoConfig
from selfreward.plugins.optimizers.sft import Sft, SftConfig

EVERY = 3
"""Steps between checkpoints."""


# ------------------------------------------------------------------------------------------------ the program that dies


@dataclass(frozen=True)
class Case:
    """A training: 22 rows in batches of 4 passed over 2.5 times, that is 15 steps; the second epoch begins at step 6."""

    plugin: type[Any]
    config: Any
    lora: int = 0


COMMON: dict[str, Any] = {"lr": 3e-3, "epochs": 2.5, "batch_size": 4, "dropout": 0.2, "checkpoint_steps": EVERY}
CASES = {
    "sft": Case(Sft, SftConfig(**COMMON)),
    "sft_random_order": Case(Sft, SftConfig(**COMMON, group_by_length=False, gradient_accumulation=2)),
    "sft_recomputed": Case(Sft, SftConfig(**COMMON, gradient_checkpointing=True)),
    "dpo_lora": Case(Dpo, DpoConfig(**COMMON, nll=0.1), lora=4),
    "dpo": Case(Dpo, DpoConfig(**COMMON, gradient_accumulation=2)),
    "ipo": Case(Ipo, IpoConfig(**COMMON)),
}
STEPS = 15


def rows(plugin: type[Any]) -> list[Any]:
    """Rows of many lengths, so that the order of the rows decides which ones share a batch."""
    turns = [[{"role": "user", "content": f"count:{n}"}] for n in range(22)]
    answers = [[{"role": "assistant", "content": "x" * (n * 7 % 22 + 1) + str(n)}] for n in range(44)]
    if plugin is Sft:
        return [Demonstration(turn, answer, 5.0, [], "p", "c") for turn, answer in zip(turns, answers, strict=False)]
    return [Preference(turns[n], answers[n], answers[n + 22], 4.0, 1.0, [], [], "p", "c", "d") for n in range(22)]


def train(case: Case, root: Path, models: list[str], told: Callable[[int], None]) -> Artifact:
    """Train as the core does: into an artifact whose ``work`` outlives a kill."""
    artifact = Store(root).artifact(Key("model", {}))
    config = ModelConfig(lora=LoraOptions(r=case.lora, alpha=8.0, dropout=0.1))
    start, reference = (ModelRef("M1", model, model, config) for model in models)
    table = rows(case.plugin)

    def fill(out: Path, work: Path) -> Mapping[str, float]:
        context = TrainingContext(start, reference, out, work, 7, lambda done, total, figures: told(done))
        return case.plugin(case.config).update(TrainingSet(type(table[0]), len(table), lambda: iter(table)), context)

    artifact.write_folder(fill)
    return artifact


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
    """What is told of each step; from step ``step`` on it dies at once, or at an ``event``, ``size`` or ``time``."""
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
        nonlocal armed
        os.write(writer, f"{step}\n".encode())
        if not kill or step < kill["step"] or armed:
            return
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

    return told


def main(request: Mapping[str, Any]) -> None:
    """Train every scene to its end through all its kills; print the exit codes and told steps of the attempts."""
    import datasets
    import peft
    import torch
    import trl  # what is imported here is not imported in every child

    assert datasets and peft and trl
    torch.set_num_threads(1)
    attempts: dict[str, list[tuple[int, list[int]]]] = {}
    for name, scene in request["scenes"].items():
        case = CASES[scene["case"]]
        case = replace(case, config=replace(case.config, **scene.get("options", {})))
        attempts[name] = [
            attempt(case, Path(request["root"]) / name, request["models"], kill) for kill in [*scene["kills"], {}]
        ]
    print(json.dumps(attempts))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
