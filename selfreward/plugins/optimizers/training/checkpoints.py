"""Checkpoints of unfinished training: killed at any moment, it goes on from the last whole one.

The trainer writes a checkpoint file by file, so a kill leaves a torn one that looks like any other. A seal, written
last, lists every file with its sha256; what has no seal or does not match it is deleted before training goes on. The
checkpoint before is deleted once the new one is sealed, so there is always one to go back to. Where prompts are held
out, the one with the best weights so far stays as well: the trainer's state names it, and training goes on only from a
checkpoint whose best one is whole, too.

Weights are safetensors. What the trainer pickles (optimizer, schedule, random states) is read with ``weights_only`` and
after its checksum; its ``training_args.bin`` is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

SEAL = "seal.json"


def checkpoint_to_resume(folder: Path, accelerator: Accelerator) -> Path | None:
    """The last whole checkpoint, the same one in every process; torn ones are deleted."""
    if accelerator.is_main_process:
        delete_torn(folder)
    accelerator.wait_for_everyone()
    return last_checkpoint(folder)


def seal_checkpoint(checkpoint: Path) -> None:
    """Vouch for the checkpoint's files, and delete those before it, except the best one."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    sums = {str(path.relative_to(checkpoint)): _sha256(path, sync=True) for path in files}
    temporary = checkpoint / f".{SEAL}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(sums, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, checkpoint / SEAL)
    _keep({checkpoint, _best(checkpoint)}, checkpoint.parent)


def delete_torn(folder: Path) -> None:
    """Delete every checkpoint but the newest whole one, and the best one until then."""
    for checkpoint in sorted(_checkpoints(folder), key=_step, reverse=True):
        if is_whole(checkpoint) and is_whole(best := _best(checkpoint)):
            return _keep({checkpoint, best}, folder)
    _keep(set(), folder)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that :func:`delete_torn` has left."""
    return max(_checkpoints(folder), key=_step, default=None)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that the seal lists is there and unharmed."""
    try:
        sums = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        listed = isinstance(sums, dict) and bool(sums)
        return listed and all(_sha256(checkpoint / name) == expected for name, expected in sums.items())
    except (OSError, ValueError):
        return False


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoint-*"))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _best(checkpoint: Path) -> Path:
    """The checkpoint with the best weights up to this one; itself where nothing is held out."""
    state = checkpoint / "trainer_state.json"
    step = json.loads(state.read_text(encoding="utf-8"))["best_global_step"] if state.exists() else None
    return checkpoint.with_name(f"checkpoint-{step}") if step else checkpoint


def _keep(these: set[Path], folder: Path) -> None:
    for other in _checkpoints(folder):
        if other not in these:
            shutil.rmtree(other)


def _sha256(path: Path, sync: bool = False) -> str:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
