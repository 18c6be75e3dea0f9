"""What the operating system refuses is one message; nothing half-written is taken for whole; then the run goes on.

The disks are real: small ones in memory, mounted for one test and filled to the byte while a run is under way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfreward import Finding, Monitor, Plugin
from selfreward.core.cli import main, run_config
from selfreward.core.config.registry import Registered, registry
from selfreward.core.run.preflight.disk import TABLES, cannot_write, free_space
from selfreward.core.store.artifacts import Artifact, Key

SMALL = [
    "data.ift=8", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2",
    "recipe.eft.source=none", "prompt_generator.n=4", "evaluators=[]", "monitors=[neighbour]", "iterations=0",
    "recipe.ift.optimizer.epochs=4", "recipe.ift.optimizer.batch_size=4", "recipe.ift.optimizer.checkpoint_steps=4",
]  # fmt: skip
"""One round of eight steps, with the trainer's checkpoint in its middle."""
MB = 1_000_000
pytestmark = pytest.mark.xdist_group("disk")
AFTER: dict[str, Callable[[], object]] = {}
"""What happens to the disk when a stage has ended, once."""


@dataclass
class NoConfig:
    """No options."""


class Neighbour(Monitor):
    """Another user of the same disk."""

    def stage_finished(self, event) -> Iterator[Finding]:
        AFTER.pop(event.stage, lambda: None)()
        yield from ()


def fill(disk: Path, leave: int) -> None:
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free_space(disk) - leave)


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Iterator[Callable[[int], Path]]:
    """``disk(size)``: a file system of so many bytes, in memory."""
    plugin = Plugin("neighbour", f"{__name__}:Neighbour", NoConfig)
    monkeypatch.setitem(registry().kinds["monitors"], "neighbour", [Registered(plugin, "tests 0")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELFREWARD_STORE", raising=False)
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            pytest.skip(f"a small disk cannot be mounted here: {getattr(problem, 'stderr', '') or problem}")
        mounted.append(folder)
        return folder

    try:
        yield mount
    finally:
        AFTER.clear()
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def made(store: Path) -> dict[str, bytes]:
    """Tables and weights of the finished artifacts; each is checked against its checksums."""
    found = {}
    for manifest in store.glob("*/*/manifest.json"):
        folder = manifest.parent
        assert Artifact(folder, Key(folder.parent.name, {})).is_finished()
        files = [p for p in folder.iterdir() if p.suffix in (".parquet", ".safetensors")]
        found |= {str(path.relative_to(store)): path.read_bytes() for path in files}
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """What the run makes where there is room."""
    folder = tmp_path_factory.mktemp("room")
    plain = [o for o in SMALL if not o.startswith("monitors=")] + ["monitors=[]"]
    assert main([*plain, f"store.path={folder / 'store'}", f"runs_dir={folder / 'runs'}"]) == 0
    return made(folder / "store")


def assert_one_message(said: str) -> None:
    assert said.startswith("selfreward: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("stage", "leave"),
    [
        ("prompts", 0),  # the next file cannot be begun
        ("training_set", 4 * MB),  # in the trainer's checkpoint, which libraries of other languages write
        pytest.param("prompts", 4096, marks=pytest.mark.chaos),  # it is begun and not ended
        pytest.param("training_set", 0, marks=pytest.mark.chaos),
        pytest.param("model", 0, marks=pytest.mark.chaos),  # everything is there but the run's own metrics
    ],
)
def test_a_disk_that_fills_up_ends_the_run_and_with_room_the_same_command_goes_on(
    disk, capsys, undisturbed, stage, leave
):
    small = disk(TABLES + 64 * MB)
    command = [*SMALL, f"store.path={small / 'store'}", f"runs_dir={small / 'runs'}"]
    AFTER[stage] = lambda: fill(small, leave)
    code = main(command)
    said = capsys.readouterr().err
    assert code == 3, said
    assert_one_message(said)
    for part in ("the disk is full", "MB free at", "the same command", "store.path=", "runs_dir="):
        assert part in said
    assert made(small / "store").items() <= undisturbed.items()
    (small / "filler").unlink()
    assert main(command) == 0, capsys.readouterr().err
    assert made(small / "store") == undisturbed


def test_a_disk_that_is_too_small_is_found_before_any_work(disk, capsys):
    small = disk(64 * MB)
    code = main([*SMALL, f"store.path={small / 'store'}", "runs_dir=runs"])
    said = capsys.readouterr().err
    assert code == 2
    assert_one_message(said)
    assert "has 64 MB free and this run needs about " in said
    assert "1 new checkpoints of 2.9 MB" in said
    assert "store.path=" in said
    assert not list(small.iterdir())
    assert not Path("runs").exists()


def test_what_the_store_has_needs_no_room(disk, capsys):
    small = disk(TABLES + 64 * MB)
    command = [*SMALL, f"store.path={small / 'store'}", "runs_dir=runs"]
    assert main(command) == 0
    fill(small, 1 * MB)
    assert main(command) == 0, capsys.readouterr().err
    assert main([*command, "seed=1"]) == 2
    assert "has 1 MB free" in capsys.readouterr().err


def test_a_disk_that_is_full_already_is_found_before_any_work(disk, capsys):
    small = disk(4 * MB)
    fill(small, 0)
    assert main([*SMALL, f"store.path={small / 'store'}", "runs_dir=runs"]) == 2
    said = capsys.readouterr().err
    assert_one_message(said)
    assert "No space left on device" in said


def test_a_disk_that_may_only_be_read(disk, capsys):
    small = disk(4 * MB)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert main([*SMALL, f"store.path={small / 'store'}", f"run_dir={small / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert said.count("Read-only file system") == 2


@pytest.mark.parametrize("refusal", ["Read-only file system", "Not a directory"])
def test_other_refusals_while_the_run_works_are_told_in_the_same_way(disk, capsys, undisturbed, refusal):
    small = disk(TABLES + 64 * MB)
    command = [*SMALL, f"store.path={small / 'store'}", "runs_dir=runs"]
    in_the_way = small / "store" / "candidates"

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small)], check=True)

    AFTER["prompts"] = (lambda: remount("ro")) if refusal == "Read-only file system" else in_the_way.touch
    assert main(command) == 3
    said = capsys.readouterr().err
    assert_one_message(said)
    assert "the operating system refused: " in said
    assert refusal in said
    remount("rw")
    if in_the_way.is_file():
        in_the_way.unlink()
    assert main(command) == 0, capsys.readouterr().err
    assert made(small / "store") == undisturbed


def test_damaged_weights_are_found_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = Path(run_config([]).choices["model"].build().path())
    weights = Path(shutil.copytree(source, tmp_path / "m0")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["model=hf", "model.path=m0", "model.rubric=micro", "store.path=store"]) == 2
    said = capsys.readouterr().err
    assert_one_message(said)
    assert "model.path=m0: weights are damaged" in said
    assert [path.name for path in tmp_path.iterdir()] == ["m0"]


def test_a_folder_is_tried_without_a_trace(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.iterdir())
    assert cannot_write(tmp_path / "new" / "deep") == cannot_write(tmp_path) == ""
    for name in ("file", "file/x", "dangling", "dangling/x"):
        assert "is no folder" in cannot_write(tmp_path / name)
    assert "File name too long" in cannot_write(tmp_path / "new" / ("n" * 300) / "deep")
    assert "null byte" in cannot_write(tmp_path / "n\0")
    assert cannot_write(Path("/proc/x"))
    assert sorted(tmp_path.iterdir()) == before
