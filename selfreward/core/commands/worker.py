"""The child's side of ``execution=isolated`` (:mod:`selfreward.core.run.isolation`).

``python -m selfreward.core.commands.worker JOB`` walks the loop as a killed run does when it is started again. A
generating child goes on until something must be trained; a training child trains one model, in one process or in many,
of which the first writes.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from selfreward.core.config.resolve import resolve
from selfreward.core.errors import SelfRewardError, StageError
from selfreward.core.loop import align
from selfreward.core.run.isolation import Inline, Needs, Passed
from selfreward.core.run.progress import Bar, Screen
from selfreward.core.run.run import Run
from selfreward.core.run.system_errors import system_errors
from selfreward.core.store.artifacts import Artifact

EVERY = 0.1
"""Seconds between two messages about one bar."""


class HandOver(BaseException):
    """The rest is another process's work."""


class Worker(Inline):
    """Where a child is in the loop, and when its work is done."""

    tells = False

    def __init__(self, wire: Wire, needs: Needs, step: int, rank: int) -> None:
        self._wire, self._needs, self._target = wire, needs, step
        self.main = rank == 0

    def reach(self, step: int, artifact: Artifact, needs: Needs) -> None:
        """Go on, or hand over where a model must be trained that is not this child's."""
        mine = self._needs is Needs.trainer and step == self._target
        if mine or artifact.is_finished():
            return
        if needs is Needs.trainer:
            raise HandOver
        if self._needs is Needs.trainer:
            raise StageError(f"{artifact.folder} was there when training was started and is not any more")

    def passed(self, passed: Passed) -> None:
        """Tell the parent; a training child has done its work with its step."""
        if passed.step >= self._target and self.main:
            self._wire.send(asdict(passed))
        if self._needs is Needs.trainer and passed.step == self._target:
            raise HandOver


class Wire:
    """The connection to the parent. When the parent is gone, however that came, this process ends."""

    def __init__(self, address: str) -> None:
        self._connection: Connection = Client(address, family="AF_UNIX")
        self._sending = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            self._connection.recv_bytes()  # the parent never sends
        except (EOFError, OSError):
            os._exit(1)

    def send(self, message: Mapping[str, Any]) -> None:
        """One message, whole."""
        with self._sending:
            self._connection.send_bytes(json.dumps(message).encode())


class WiredScreen(Screen):
    """Bars are drawn by the parent, a few times a second; lines are the parent's business."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self._numbers = itertools.count()

    def line(self, text: str, style: str = "") -> None: ...

    def rule(self, text: str) -> None: ...

    @contextmanager
    def bar(self, name: str, total: float | None) -> Iterator[Bar]:
        number, sent = next(self._numbers), 0.0

        def send(bar: Bar, ended: bool = False) -> None:
            nonlocal sent
            now = time.monotonic()
            if ended or now - sent > EVERY:
                sent = now
                state = {"name": name, "total": bar.total, "shown": bar.shown, "figures": dict(bar.figures)}
                self._wire.send({"bar": number, **state, "ended": ended})

        bar = Bar(name, total, send)
        try:
            yield bar
        finally:
            send(bar, ended=True)


def main(job_file: str) -> int:
    """Do a job and return the exit code."""
    from omegaconf import OmegaConf
    from transformers.utils import logging

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    needs, rank = Needs(job["needs"]), int(os.environ.get("RANK", "0"))
    wire = Wire(job["address"])
    logging.disable_progress_bar()
    _meet()
    config = resolve(OmegaConf.create(job["composed"]), "", job["experiment"], job["ablation"])
    run = Run(config, WiredScreen(wire), Worker(wire, needs, job["step"], rank))
    try:
        with system_errors(run.resources.store.path, run.folder):
            run.resources.roles.enter()
            align(run)
    except HandOver:
        pass  # this child's work is done: the good end, told to the parent below
    except SelfRewardError as problem:
        wire.send({"error": getattr(problem, "problems", str(problem)), "kind": type(problem).__name__})
        return problem.exit_code
    finally:
        run.close()
    if rank == 0:
        wire.send({"end": True})
    return 0


def _meet() -> None:
    """Join the processes that train together; where there is no GPU they must be told so before anything else asks."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState

        # one process writes checkpoints, and a judge may keep one longer than the others: that is no failure
        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
