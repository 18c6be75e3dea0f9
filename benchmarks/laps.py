"""One run, with the time and the memory at the end of each of its stages: a lifecycle plugin that holds a watch.

``python -m benchmarks.laps LAST OVERRIDE ...`` does it in a process of its own, so that the peak memory is that of this
run alone, and prints the laps as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the fastest for models this small
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # TRL tells its makers of every trainer, which takes time
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from selfreward import Event, hookimpl
from selfreward.core.cli import QUIET, run_config
from selfreward.core.config.registry import registry
from selfreward.core.runner import run

for name, value in QUIET.items():
    os.environ.setdefault(name, value)


class Lap(NamedTuple):
    """The end of a stage."""

    at: float
    """Seconds, counted from some moment."""
    cpu: float
    """Seconds that the process has computed so far, in all its threads."""
    peak: float
    """Most memory that the process has held so far, in MiB."""
    rows: float
    folder: str
    """Where the stage's artifact is."""


Laps = dict[str, Lap]
"""By round and stage (``loop/candidates``); ``start`` is where the first stage begins."""


class LastLap(BaseException):
    """The run has come to where it was to be stopped."""


@dataclass
class Watch:
    """A lifecycle plugin that notes when each stage ends, and ends the run after one of them."""

    last: str
    laps: Laps

    @hookimpl
    def selfreward_run_started(self, event: Event) -> None:
        """Note the start."""
        self._note("start", event)

    @hookimpl
    def selfreward_stage_finished(self, event: Event) -> None:
        """Note the lap."""
        self._note(f"{event.round}/{event.stage}", event)

    def _note(self, name: str, event: Event) -> None:
        self.laps[name] = Lap(
            time.perf_counter(), time.process_time(), peak(), event.figures.get("rows", 0), str(event.folder)
        )
        if name == self.last:
            raise LastLap


def laps(overrides: Sequence[str], last: str = "") -> Laps:
    """Do the run, as far as the stage ``last`` (``loop/judgements``)."""
    gc.collect()
    gc.freeze()  # what earlier runs have left is not this one's to walk
    watch = Watch(last, {})
    with _plugged(watch), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), suppress(LastLap):
        run(run_config(overrides))
    return watch.laps


def laps_apart(overrides: Sequence[str], last: str = "") -> Laps:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.laps", last, *overrides]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {name: Lap(*lap) for name, lap in json.loads(said).items()}


class Seeded:
    """A store in which M1 has been made; every run gets a copy of it, so that each does its loop anew."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self._folder, self._overrides, self._copies = folder, overrides, 0
        laps([*overrides, *self._kept_in(folder / "seeded")], "eft/model")

    def overrides(self) -> list[str]:
        """Those of one run."""
        self._copies += 1
        copy = self._folder / f"{self._copies}"
        shutil.copytree(self._folder / "seeded" / "store", copy / "store")
        return [*self._overrides, *self._kept_in(copy)]

    def _kept_in(self, folder: Path) -> list[str]:
        return [f"store.path={folder / 'store'}", f"runs_dir={folder / 'runs'}"]


@contextmanager
def _plugged(watch: Watch) -> Iterator[None]:
    manager = registry().manager
    manager.register(watch)
    try:
        yield
    finally:
        manager.unregister(watch)


def peak() -> float:
    """Most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the parent's memory before exec into its ru_maxrss
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(laps(sys.argv[2:], sys.argv[1])))
