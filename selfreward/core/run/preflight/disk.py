"""Disk: whether the folders of a run can be written, and whether what it will write fits."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from selfreward.core.config.resolve import RunConfig
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.stages import Optimizer
from selfreward.core.run.plan import Plan
from selfreward.core.run.run import Run

TABLES = 64_000_000
"""Bytes to spare for what is not weights: tables, tokenizers, links, the report."""
TRAINED_PARAMETER = 12
"""Bytes of trainer state per float32 parameter: the weight and AdamW's two moments."""


def folder_problems(run: Run) -> Iterator[str]:
    """Store and run folder that cannot be written, each with its mend."""
    option = "run_dir" if run.options.run_dir else "runs_dir"
    for what, folder, mend in (("store", run.resources.store.path, "store.path"), ("run's folder", run.folder, option)):
        if why := cannot_write(folder):
            yield f"the {what} {folder} cannot be written ({why}); choose another folder with {mend}="


def cannot_write(folder: Path) -> str:
    """Why a folder cannot be made and written; empty if it can. It is tried, beside it, and nothing is left behind."""
    whole = Path(os.path.abspath(folder))
    there = next(path for path in (whole, *whole.parents) if os.path.lexists(path))
    try:
        if not there.is_dir():
            return f"{there} is no folder"
        with tempfile.TemporaryDirectory(prefix=".selfreward-", dir=there) as probe:
            new = Path(probe) / whole.relative_to(there)
            new.mkdir(parents=True, exist_ok=True)
            (new / "probe").write_bytes(bytes(4096))
    except (OSError, ValueError) as problem:
        return f"{there}: {getattr(problem, 'strerror', None) or problem}"
    return ""


def space_problems(run: Run, base: ModelRef, dry_plan: Callable[[RunConfig], Plan]) -> list[str]:
    """Free space for new checkpoints, for the trainer's own while the next one is written, and for tables."""
    from safetensors import SafetensorError

    store = run.resources.store.path
    free = free_space(store)
    try:
        checkpoint, state = _checkpoint_bytes(run, base)
    except SafetensorError as problem:
        return [f"model.path={base.path}: weights are damaged ({problem}); copy or download them again"]
    new = len(list(run.rounds()))
    # what a killed training has left is used again, or replaced
    free += sum(p.stat().st_size for p in store.glob("model/*.partial/**/*") if p.is_file())
    if new * checkpoint + state + TABLES > free:  # only then is it worth asking the store, which checks what it has
        plan = dry_plan(run.config)
        new, steps = plan.models, len(plan.to_do)
        needed = new * checkpoint + (state if new else 0) + TABLES
        if steps and needed > free:
            return [
                f"the disk of the store {store} has {free / 1e6:,.0f} MB free and this run needs about "
                f"{needed / 1e6:,.0f} MB: {new} new checkpoints of {checkpoint / 1e6:,.1f} MB, "
                f"{state / 1e6:,.1f} MB while training, {TABLES / 1e6:,.0f} MB for tables; free some space, or keep "
                "the store on another disk (store.path=)"
            ]
    return []


def free_space(folder: Path) -> int:
    """Bytes that may still be written on the disk that a folder is on, or will be on."""
    whole = Path(os.path.abspath(folder))
    return shutil.disk_usage(next(path for path in (whole, *whole.parents) if path.exists())).free


def _checkpoint_bytes(run: Run, base: ModelRef) -> tuple[int, int]:
    """Size of a new checkpoint, and of the two of the trainer's that are there while one takes the other's place."""
    from safetensors import safe_open

    stored = parameters = 0
    for path in Path(base.path).glob("*.safetensors"):
        stored += path.stat().st_size
        with safe_open(path, framework="numpy") as weights:
            parameters += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    written = parameters * {"float32": 4, "bfloat16": 2}.get(base.torch_dtype(), 0) or stored
    optimizers: list[Optimizer] = [round.optimizer.build() for round in run.rounds()]
    keeps = [optimizer for optimizer in optimizers if optimizer.checkpoints]
    # adapters are next to nothing; a value model of its own is trained whole
    critics = any(optimizer.critic for optimizer in keeps)
    whole = bool(keeps and not base.config.lora.r) + critics
    return written, 2 * TRAINED_PARAMETER * parameters * whole
