"""A whole iteration, M1 to M2, on the micro world: overlapped stages, and against scripts that people write by hand.

**Overlap**: verdicts are asked for while later answers are still sampled. Compared are the seconds from the last prompt
to the last verdict with those of the same run in which the thread is replaced by a plain call, so that all answers come
before the first verdict. There is no such option; the replacement is made here (:func:`one_after_the_other`). On a CPU
Python and the model share the cores, so there is little to win; on a GPU it is what keeps the engine busy.

**Scripts**: see ``plain_scripts``. The same model, number of prompts, answers and votes, settings of sampling and of
training; the scripts train on the pairs of the run they are measured with, so that all train on the same rows. The run
writes its tables and its checkpoint, keys and checks included. The one-by-one script writes, answers and reviews a few
of the prompts only, which is scaled to their number; its training is that of the other script. Starting Python and its
imports are on neither side, loading the model is on both. Everything runs on one CPU thread, the fastest for a model of
0.7 M parameters.

Each round measures all of them in turn; a figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.figures import Figure, arguments, report
from benchmarks.laps import Laps, Seeded, laps, run_config
from benchmarks.plain_scripts import Batched, Iteration, OneByOne, Pair, Settings, train
from selfreward import Rubric

ALWAYS = (
    "iterations=1", "evaluators=[]", "monitors=[]", "judge.votes=3", "data.evaluation=20", "data.judge_evaluation=20",
)  # fmt: skip
FULL = (*ALWAYS, "prompt_generator.n=96", "shard_size=32", "data.ift=400", "data.eft=100", "data.tasks=60")
QUICK = (*ALWAYS, "prompt_generator.n=24", "shard_size=12", "data.ift=120", "data.eft=60", "data.tasks=30")
TOLD = {
    "iteration": ("prompts", "overlapped", "training"),
    "batched script": ("batched", "their_training"),
    "one-by-one script": ("one_by_one", "their_training"),
    "answers, then verdicts": ("in_turn",),
}
"""What is printed of a round, whole and in parts."""


@dataclass
class Round:
    """The seconds of one round, by one clock."""

    prompts: float
    overlapped: float
    """Answers and verdicts."""
    training: float
    """Selection as well."""
    in_turn: float
    """Answers, then verdicts."""
    batched: float
    """All that comes before training."""
    one_by_one: float
    their_training: float

    def speed_over(self, generating: float) -> float:
        """How many times as fast the iteration is as a script."""
        return (generating + self.their_training) / (self.prompts + self.overlapped + self.training)


def main() -> int:
    """Measure in turn and print the ratios."""
    given = arguments(__doc__ or "")
    overrides, few, count = (QUICK, 1, 3) if given.quick else (FULL, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        seeded = Seeded(Path(folder) / "runs", *overrides)
        import trl

        _ = trl.DPOTrainer  # imported on first use, which is on nobody's watch
        measured = [measure(seeded, Path(folder) / "script", few) for _ in range(count)]
    wall, cpu, busy = zip(*measured, strict=True)
    print(f"medians of {count} rounds; the one-by-one script generates for {few} prompts, scaled to all")
    for name, parts in TOLD.items():
        medians = [statistics.median(getattr(round, part) for round in wall) for part in parts]
        print(f"{name:<24}{sum(medians):6.1f} s:", *(f"{p} {m:.1f}" for p, m in zip(parts, medians, strict=True)))
    slow, careful, _ = ratios(cpu)
    print(f"in CPU seconds, which others on this machine disturb less: speeds {slow:.2f} and {careful:.2f}")
    slow, careful, overlap = ratios(wall)
    figures = [
        Figure("iteration: speed over a one-by-one script", slow, 10, "higher"),
        Figure("iteration: speed over a careful batched script", careful, 2, "higher"),
        Figure("answers and verdicts: overlapped over one after the other", overlap, 1, "lower"),
        Figure("share of the generating phase in which the engine had work", statistics.median(busy), 0.95, "higher"),
    ]
    return report(figures, given.json)


def ratios(rounds: Sequence[Round]) -> tuple[float, float, float]:
    """Speed over the one-by-one and over the careful script, and overlapped over in turn: medians over the rounds."""
    return (
        statistics.median(round.speed_over(round.one_by_one) for round in rounds),
        statistics.median(round.speed_over(round.batched) for round in rounds),
        statistics.median(round.overlapped / round.in_turn for round in rounds),
    )


def measure(seeded: Seeded, out: Path, few: int) -> tuple[Round, Round, float]:
    """Each of them once, by the wall's clock and by the processor's; and the share in which the engine had work."""
    overrides = seeded.overrides()
    run = laps(overrides)
    with patch("selfreward.core.run.stages.keyed.Aside", one_after_the_other):
        in_turn = laps(seeded.overrides(), "loop/judgements")
    scripts, prompts = Scripts(overrides, run), int(run["loop/prompts"].rows)
    parts = (
        between(run, "eft/model", "loop/prompts"),
        between(run, "loop/prompts", "loop/judgements"),
        between(run, "loop/judgements", "loop/model"),
        between(in_turn, "loop/prompts", "loop/judgements"),
        seconds(lambda: scripts.generate(Batched, prompts)),
        seconds(lambda: scripts.generate(OneByOne, few), prompts / few),
        seconds(lambda: scripts.train(out)),
    )
    wall, cpu = (Round(*clock) for clock in zip(*parts, strict=True))
    return wall, cpu, engine_busy(overrides)


def one_after_the_other(artifact: Any, work: Callable[[], None], finished: Callable[[], None]) -> None:
    """In place of :class:`selfreward.core.store.aside.Aside`: the whole table, and only then who reads it."""
    work()
    finished()


class Scripts:
    """The hand-written iteration on the model, the settings and the pairs of a run."""

    def __init__(self, overrides: list[str], run: Laps) -> None:
        self._model, self._pairs = run["eft/model"].folder, pairs(Path(run["loop/training_set"].folder))
        choices = run_config(overrides).choices
        self._of = {kind: choice.config for kind, choice in choices.items()}
        self._seeds = [row.prompt.text for row in choices["data"].build().split("ift", 0)]
        self._rubric = Rubric.load(self._of["model"].rubric)

    def generate(self, script: type[OneByOne], prompts: int) -> None:
        """Prompts, answers, verdicts and pairs."""
        of = self._of
        settings = [sampling(of[kind]) for kind in ("prompt_generator", "sampler", "judge")]
        amounts = prompts, of["sampler"].n, of["judge"].votes
        Iteration(script(self._model), self._seeds, self._rubric, *amounts, *settings).run()

    def train(self, out: Path) -> None:
        """The new checkpoint."""
        options = self._of["optimizer"]
        settings = {
            "learning_rate": options.lr,
            "warmup_steps": options.warmup,
            "num_train_epochs": options.epochs,
            "per_device_train_batch_size": options.batch_size,
            "beta": options.beta,
            "loss_type": ["sigmoid", "sft"],
            "loss_weights": [1.0, options.nll],
        }
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            train(self._model, self._pairs, out, **settings)


def sampling(config: Any) -> Settings:
    """A stage's settings as ``model.generate`` takes them."""
    return {name: getattr(config, name) for name in ("temperature", "top_p", "max_new_tokens")}


def pairs(folder: Path) -> list[Pair]:
    """The preferences of a training set."""
    import pyarrow.parquet as pq

    columns = ["prompt", "chosen", "rejected"]
    return [
        row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file, columns=columns).to_pylist()
    ]


def engine_busy(overrides: list[str]) -> float:
    """What the run reports of its iteration."""
    runs = next(Path(text.removeprefix("runs_dir=")) for text in overrides if text.startswith("runs_dir="))
    [metrics] = runs.rglob("metrics.json")
    [busy] = [row["value"] for row in json.loads(metrics.read_text()) if row["metric"] == "engine_busy"]
    return float(busy)


def between(run: Laps, begin: str, end: str) -> tuple[float, float]:
    """Seconds and CPU seconds between two laps."""
    return run[end].at - run[begin].at, run[end].cpu - run[begin].cpu


def seconds(work: Callable[[], None], times: float = 1) -> tuple[float, float]:
    """Seconds and CPU seconds of some work, scaled."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * times, (time.process_time() - cpu) * times


if __name__ == "__main__":
    sys.exit(main())
