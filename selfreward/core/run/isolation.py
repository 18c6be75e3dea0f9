"""Where stages run: all in this process (``execution=inline``), or each phase in a child that ends (``isolated``).

The parent walks the loop and tells of it. Where it comes to work for a model, it starts a child that walks the same
loop over the same store, passes over what is finished, and goes on until the next training: one load of the engine.
Each training is a child of its own, under ``accelerate launch`` where there are several processes. So a model's memory
comes back whole, whatever library held it; the store is all they share, and a child that dies is a killed run: the same
command goes on from its last whole shard.

Steps are numbered in the order in which the loop asks for artifacts, the same in every process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from selfreward.core.config.resolve import LaunchOptions, RunConfig
from selfreward.core.errors import SelfRewardError, StageError, UserError
from selfreward.core.run.progress import Screen
from selfreward.core.store.artifacts import Artifact

LAST_LINES = 15
"""Lines of a dead child's output that are shown."""


class Needs(Enum):
    """What a step takes besides Python."""

    nothing = "nothing"
    engine = "generate"
    trainer = "train"


@dataclass(frozen=True)
class Passed:
    """A step that a child has come past."""

    step: int
    reused: bool
    why_new: str = ""
    engine_busy: float | None = None
    """Share of the generating phase in which the engine had work, as far as the child knows."""


class Inline:
    """Everything in this process."""

    main = True
    """Whether this process writes: of many that train together only the first does."""
    tells = True
    """Whether this process shows, links and reports what is done."""

    def reach(self, step: int, artifact: Artifact, needs: Needs) -> Passed | None:
        """Called before a step; what a child did of it, or None when it is this process's work."""
        return None

    def passed(self, passed: Passed) -> None:
        """Called after a step."""

    def close(self) -> None:
        """The run has ended, well or badly."""


class Parent(Inline):
    """``execution=isolated``, seen from the process that the user started."""

    def __init__(self, config: RunConfig, folder: Path, screen: Screen) -> None:
        self._config, self._logs, self._screen = config, folder / "logs", screen
        self._children = 0
        self._child: Child | None = None

    def reach(self, step: int, artifact: Artifact, needs: Needs) -> Passed | None:
        """Follow the child that is at work; start one where a model is needed and none is."""
        passed = self._follow(step)
        if passed is None and needs is not Needs.nothing and not artifact.is_finished():
            self._children += 1
            log = self._logs / f"{self._children:02d}-{needs.value}.log"
            self._child = Child(self._config, self._screen, needs, step, log)
            passed = self._follow(step)
            if passed is None:
                raise StageError(f"a child process ended without doing its work; its log is {log}")
        return passed

    def _follow(self, step: int) -> Passed | None:
        passed = self._child.wait_for(step) if self._child else None
        if passed is None and self._child:
            self._child.close()
            self._child = None
        return passed

    def close(self) -> None:
        """End the child, however far it is."""
        if self._child:
            self._child.close()
            self._child = None


class Child:
    """A process that works for this one, and its messages: bars, steps, its end."""

    def __init__(self, config: RunConfig, screen: Screen, needs: Needs, step: int, log: Path) -> None:
        self.what, self.log = f"the child process that {'trains' if needs is Needs.trainer else 'generates'}", log
        self._messages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="selfreward-")
        address = str(Path(self._folder.name) / "events")
        self._listener = Listener(address, family="AF_UNIX")
        job = {
            "composed": config.composed,
            "experiment": config.experiment,
            "ablation": config.ablation,
            "needs": needs.value,
            "step": step,
            "address": address,
        }
        at = Path(self._folder.name) / "job.json"
        at.write_text(json.dumps(job), encoding="utf-8")
        log.parent.mkdir(parents=True, exist_ok=True)
        # the listener's thread ends with the process, the child's end closes its connections
        threading.Thread(target=self._accept, args=(screen,), daemon=True).start()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command(config.options.launch, needs, str(at)),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _accept(self, screen: Screen) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection = self._listener.accept()
                threading.Thread(target=self._listen, args=(connection, screen), daemon=True).start()

    def _listen(self, connection: Connection, screen: Screen) -> None:
        bars: dict[int, Any] = {}
        speaks = False
        try:
            while True:
                message = json.loads(connection.recv_bytes())
                speaks = True
                if "bar" in message:
                    _draw(bars, message, screen)
                else:
                    self._messages.put(message)
        except (EOFError, OSError):
            for opened, _ in bars.values():
                opened.__exit__(None, None, None)
            if speaks:
                self._messages.put(None)

    def wait_for(self, step: int) -> Passed | None:
        """The message that this step is done; None when the child has ended in good order before it.

        Raises:
            SelfRewardError: what the child ended with; a child that died is told with its last lines.
        """
        while True:
            try:
                message = self._messages.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is None or not self._messages.empty():
                    continue
                message = None
            if message is None:
                raise self._died()
            if "error" in message:
                raise (UserError if message["kind"] == "UserError" else StageError)(message["error"])
            if "end" in message:
                return None
            if message["step"] == step:
                return Passed(**message)

    def _died(self) -> SelfRewardError:
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            code = 0
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        shown = "\n".join(f"  | {line}" for line in lines) or "  | (it said nothing)"
        return StageError(
            f"{self.what} {ended}{hint}; the same command goes on from the last whole shard or checkpoint. Its last "
            f"lines (all of them are in {self.log}):\n{shown}"
        )

    def close(self) -> None:
        """End the process and all it started."""
        self._listener.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0 if self._messages.empty() else 10)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


def command(launch: LaunchOptions, needs: Needs, job: str) -> list[str]:
    """The child's command line; training in several processes goes through ``accelerate launch``."""
    module = "selfreward.core.commands.worker"
    if needs is not Needs.trainer or (launch.processes == 1 and not launch.config):
        return [sys.executable, "-m", module, job]
    # "multi_gpu" is torchrun; on a CPU its processes talk by gloo. Port 0: a free one, sweeps have many jobs
    layout = ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    if launch.config:
        layout = [f"--config_file={launch.config}"]
    if launch.processes > 1:
        layout.append(f"--num_processes={launch.processes}")
    return [sys.executable, "-m", "accelerate.commands.launch", *layout, "--module", module, job]


def _draw(bars: dict[int, Any], message: Mapping[str, Any], screen: Screen) -> None:
    """A child's bar on the parent's screen."""
    number = message["bar"]
    if number not in bars:
        opened = screen.bar(message["name"], message["total"])
        bars[number] = opened, opened.__enter__()
    opened, bar = bars[number]
    bar.update(message["total"], message["shown"], message["figures"])
    if message["ended"]:
        opened.__exit__(None, None, None)
        del bars[number]
