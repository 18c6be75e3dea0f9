"""What a shared store saves: 2 selectors x 3 optimizers as one sweep, against six runs with stores of their own.

A sweep's jobs share everything up to the point where they differ: both seed rounds, and the prompts, answers and
judgements of iteration 1. Three preference optimizers follow each of two preference selectors; the third is DPO at
another β, since that is what people sweep. Cost is the wall time of the child processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, arguments, report

SELECTORS = ("best_worst", "random_pair")
OPTIMIZERS = (("dpo",), ("ipo",), ("dpo", "optimizer.beta=0.3"))
FULL = ["experiment=micro_fast", "iterations=1", "evaluators=[oracle]", "monitors=[]"]
QUICK = [*FULL, "data.ift=80", "data.eft=40", "data.tasks=20", "prompt_generator.n=40", "evaluation.n=20"]


def seconds(folder: Path, *overrides: str) -> float:
    """Wall time of ``python -m selfreward ...`` in a folder, one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    started = time.perf_counter()
    command = [sys.executable, "-m", "selfreward", *overrides]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    """Run both in turn and print their ratio."""
    given = arguments(__doc__ or "")
    base = QUICK if given.quick else FULL
    shared = apart = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, (optimizer, *options) in enumerate(OPTIMIZERS):
            jobs = [*base, f"optimizer={optimizer}", *options]
            # the sweep's share of this optimizer, then the same two jobs apart, so that noise hits both alike
            shared += seconds(Path(folder), *jobs, "store.path=shared", "-m", f"selector={','.join(SELECTORS)}")
            for selector in SELECTORS:
                store = f"store.path=apart-{number}-{selector}"
                apart += seconds(Path(folder), *jobs, store, f"selector={selector}")
    print(f"one sweep {shared:.0f} s, six runs apart {apart:.0f} s")
    return report(
        [Figure("cost of the sweep over that of six separate runs", shared / apart, 0.4, "lower")], given.json
    )


if __name__ == "__main__":
    sys.exit(main())
