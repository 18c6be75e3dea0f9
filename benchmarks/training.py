"""What training costs besides its arithmetic, in time and in memory.

**Model**: a randomly initialised Llama of 2.1 M parameters (4 layers, hidden size 192, 3 heads, vocabulary of 1,536),
float32, on a CPU one thread. **Rows**: prompts of 16 to 64 words, each a token; answers of 16 to 512 tokens, their
lengths drawn log-uniformly and independently, so the two answers of a pair differ as well.

- **ppo**: stored answers, four to a prompt, trained on by ``optimizer=ppo`` and by a bare loop. The clock starts when
  the models are loaded and the answers' first log-probabilities known.
- **dpo**: ``optimizer=dpo`` and a bare loop on the same batches, from the end of the first step to that of the last;
  and the whole call, reference and loading included, against TRL's trainer with its defaults: a reference model in
  every step, batches at random. Batch size, learning rate and epochs are the same, gradient checkpointing is off.

The bare loops (see ``bare_loops``) must end with the weights that the optimizers end with, or the benchmark fails.

Every training has a process of its own, forked from one that has done the imports; they run in turn, and a figure is
the median of the rounds' ratios. Seconds are those of the processor, which others on the machine disturb less (on a
GPU: those of the clock); memory is how far the highest resident size is above that with the imports alone (on a GPU:
the most that torch has taken).
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.figures import Figure, arguments, report
from benchmarks.laps import peak
from selfreward import Message, ModelConfig, ModelRef, Preference, Scored, TrainingContext, TrainingRow, TrainingSet
from selfreward.plugins import micro
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig
from selfreward.plugins.optimizers.training.options import Schedule

IMPORTS = [
    "torch._dynamo", "trl.trainer.dpo_trainer", "transformers.models.llama.modeling_llama",
    "selfreward.plugins.optimizers.ppo.trainer", "selfreward.plugins.optimizers.preference", "benchmarks.figures",
    "benchmarks.laps", "benchmarks.plain_scripts", "benchmarks.bare_loops",
]  # fmt: skip
M0 = Path(str(micro.__file__)).parent / "m0"
SEED = 0
PER_PROMPT = 4
PPO = PpoConfig(lr=1e-4, schedule=Schedule.constant, rollouts=2, batch_size=4, stop_kl=0)
SAME = 1e-3
"""How far weights of the same work may be apart, as a share of how far training has moved them."""


@dataclass(frozen=True)
class Size:
    """How much is trained on, and how often."""

    pairs: int
    batch: int
    """Pairs in a step."""
    prompts: int
    """Of ppo."""
    longest: int
    """Tokens of the longest answer."""
    rounds: int
    """Of dpo; ppo, whose trainings are shorter, takes twice as many."""

    def dpo(self) -> DpoConfig:
        """The options of ``optimizer=dpo``."""
        return DpoConfig(lr=1e-4, schedule=Schedule.constant, batch_size=self.batch)


FULL, QUICK = Size(64, 4, 4, 512, 5), Size(16, 2, 2, 128, 2)


@dataclass
class Job:
    """One training, in the process that does it."""

    start: Path
    out: Path
    size: Size
    laps: dict[str, float] = field(default_factory=dict)
    """Seconds, counted from some moment."""

    def lap(self, name: str) -> None:
        """Look at the clock when all that was begun is done."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.laps[name] = time.perf_counter() if torch.cuda.is_available() else time.process_time()

    def context(self) -> TrainingContext:
        """What an optimizer is given; the ends of the first and of the last step are laps."""
        model, work = ModelRef("M1", str(self.start), "M1", ModelConfig()), self.out / "work"
        work.mkdir()
        return TrainingContext(model, model, self.out, work, SEED, self._progress)

    def _progress(self, done: int, total: int, figures: Any) -> None:
        if done in (1, total):
            self.lap(f"step {'one' if done == 1 else 'last'}")


Train = Callable[[Job], None]


class Outcome(NamedTuple):
    """Of one training."""

    laps: dict[str, float]
    peak: float
    """MiB."""
    out: Path

    def seconds(self, begin: str, end: str) -> float:
        """Between two laps."""
        return self.laps[end] - self.laps[begin]


# ------------------------------------------------------------------ what is measured


def main() -> int:
    """Train in turn and print the ratios."""
    given = arguments(__doc__ or "")
    size = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        apart(make_model, start)
        ppo, ppo_loop = in_turn((our_ppo, bare_ppo), start, size, 2 * size.rounds)
        dpo, dpo_loop, trl_dpo = in_turn((our_dpo, bare_dpo, their_dpo), start, size, size.rounds)
    steps, whole = ("step one", "step last"), ("begin", "end")
    figures = [
        *compare("ppo step over a bare PyTorch loop", ppo, ppo_loop, whole, 1.05, 1.1),
        *compare("dpo step over a bare PyTorch loop", dpo, dpo_loop, steps, 1.05, 1.1),
        *compare("dpo, reference once and batches by length, over TRL's defaults", dpo, trl_dpo, whole, 0.7, 1.0),
    ]
    return report(figures, given.json)


def in_turn(trainings: Sequence[Train], start: Path, size: Size, count: int) -> list[list[Outcome]]:
    """Every training in each round; the first two must end with the same weights."""
    rounds: list[list[Outcome]] = []
    for number in range(count):
        rounds.append([])
        for train in trainings:
            out = start.parent / f"{train.__name__}-{number}"
            out.mkdir()
            laps, memory = apart(run, train, Job(start, out, size))
            rounds[-1].append(Outcome(laps, memory, out))
    check_same(start, rounds[0][0].out, rounds[0][1].out)
    return [list(outcomes) for outcomes in zip(*rounds, strict=True)]


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What the work returns, done in a process of its own that finds everything imported."""
    with ProcessPoolExecutor(1, get_context("forkserver")) as process:
        return process.submit(work, *given).result()


def check_same(start: Path, ours: Path, bare: Path) -> None:
    """Whether two trainings were the same work."""
    from safetensors.numpy import load_file

    before, one, other = (load_file(folder / "model.safetensors") for folder in (start, ours, bare))
    moved, differ = (
        math.sqrt(sum(float(((one[name] - weights[name]) ** 2).sum()) for name in one)) for weights in (before, other)
    )
    print(f"{ours.name}, {bare.name}: weights moved by {moved:.3g}, and are {differ:.2g} apart", flush=True)
    if not differ <= SAME * moved:
        raise SystemExit(f"{ours.name} and {bare.name} are not the same work")


def compare(
    name: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], laps: tuple[str, str], goal: float, memory: float
) -> list[Figure]:
    """Medians of the ratios."""
    times = [(one.seconds(*laps), other.seconds(*laps)) for one, other in zip(ours, theirs, strict=True)]
    peaks = [(one.peak, other.peak) for one, other in zip(ours, theirs, strict=True)]
    for what, both in (("s", times), ("MiB", peaks)):
        print(f"{name}: {' and '.join(f'{median(values):.1f}' for values in zip(*both, strict=True))} {what}")
    return [
        Figure(name, median(one / other for one, other in times), goal, "lower"),
        Figure(f"{name}, peak memory", median(one / other for one, other in peaks), memory, "lower"),
    ]


# ------------------------------------------------------------------ in a process of its own


def make_model(folder: Path) -> None:
    """The random Llama, with the micro model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ModelRef("M0", str(M0), "M0", ModelConfig()).chat().save(folder)
    torch.manual_seed(SEED)
    shape: dict[str, Any] = {"vocab_size": 1536, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4}
    more: dict[str, Any] = {"num_attention_heads": 3, "max_position_embeddings": 1024, "tie_word_embeddings": True}
    ends: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**shape, **more, **ends)).save_pretrained(folder)


def run(train: Train, job: Job) -> tuple[dict[str, float], float]:
    """The laps, and the most memory in MiB that was held besides the imports."""
    import torch

    torch.set_num_threads(1)
    imported = peak()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        train(job)
    cuda = torch.cuda.is_available()
    return job.laps, torch.cuda.max_memory_allocated() / 2**20 if cuda else peak() - imported


def our_ppo(job: Job) -> None:
    """``optimizer=ppo`` on stored answers."""
    from selfreward.plugins.optimizers.ppo.trainer import PpoTrainer

    trainer = PpoTrainer(training_set(answers(job.size)), job.context(), PPO)
    job.lap("begin")
    trainer.train()
    job.lap("end")
    trainer.save()


def bare_ppo(job: Job) -> None:
    """The same by hand."""
    from benchmarks.bare_loops import Answer, BarePpo

    chat = ModelRef("M1", str(job.start), "M1", ModelConfig()).chat()
    rows = [
        Answer(chat.encode(row.prompt), chat.encode_reply(row.completion[0]["content"]), row.score)
        for row in answers(job.size)
    ]
    loop = BarePpo(job.start, rows, PER_PROMPT, PPO, SEED, chat.pad_id)
    job.lap("begin")
    loop.train()
    job.lap("end")
    loop.policy.save_pretrained(job.out)


def our_dpo(job: Job) -> None:
    """``optimizer=dpo``."""
    job.lap("begin")
    Dpo(job.size.dpo()).update(training_set(pairs(job.size)), job.context())
    job.lap("end")


def bare_dpo(job: Job) -> None:
    """The same by hand."""
    from benchmarks.bare_loops import BareDpo, Pair

    chat = ModelRef("M1", str(job.start), "M1", ModelConfig()).chat()
    rows = [
        Pair(chat.encode(row.prompt), *(chat.encode_reply(said[0]["content"]) for said in (row.chosen, row.rejected)))
        for row in pairs(job.size)
    ]
    loop = BareDpo(job.start, rows, job.size.dpo(), SEED, chat.pad_id)
    batches = loop.batches()
    for step, batch in enumerate(batches):
        loop.step(batch)
        if not step:
            job.lap("step one")
    job.lap("step last")
    loop.model.save_pretrained(job.out)


def their_dpo(job: Job) -> None:
    """TRL's trainer as it comes."""
    import torch

    from benchmarks.plain_scripts import train

    columns, options = ("prompt", "chosen", "rejected"), job.size.dpo()
    rows: list[Any] = [{name: getattr(row, name) for name in columns} for row in pairs(job.size)]
    same: dict[str, Any] = {
        "learning_rate": options.lr,
        "lr_scheduler_type": "constant",
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.batch_size,
        "adam_beta2": options.adam_beta2,
        "beta": options.beta,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
    }
    job.lap("begin")
    train(str(job.start), rows, job.out, **same)
    job.lap("end")


# ------------------------------------------------------------------ rows


def pairs(size: Size) -> list[Preference]:
    """Pairs of answers."""
    texts, rows = Texts(size.longest), []
    for number in range(size.pairs):
        prompt, chosen, rejected = texts.prompt(), texts.answer(), texts.answer()
        ids = f"p{number}", f"c{number}", f"r{number}"
        rows.append(Preference(prompt, chosen, rejected, 1.0, 0.0, [], [], *ids))
    return rows


def answers(size: Size) -> list[Scored]:
    """Answers with scores, those to a prompt one after the other."""
    texts, rows = Texts(size.longest), []
    for number in range(size.prompts):
        prompt = texts.prompt()
        for k in range(PER_PROMPT):
            score = texts.rng.choice((0.0, 1.0, 2.0, 3.0, 4.0, 5.0))
            rows.append(Scored(prompt, texts.answer(), score, [], f"p{number}", f"c{number}.{k}"))
    return rows


def training_set(rows: Sequence[TrainingRow]) -> TrainingSet:
    """As an optimizer takes them."""
    return TrainingSet(type(rows[0]), len(rows), lambda: iter(rows))


class Texts:
    """Random words, each a token."""

    def __init__(self, longest: int) -> None:
        self.rng, self._longest = random.Random(SEED), longest
        known = json.loads((M0 / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        self._words = [f" {piece[1:]}" for piece in known if piece[0] == "Ġ" and piece[1:].isalpha()]

    def prompt(self) -> list[Message]:
        """16 to 64 words."""
        return [{"role": "user", "content": self._text(self.rng.randint(16, 64))}]

    def answer(self) -> list[Message]:
        """16 to ``longest`` tokens with the one that ends it, log-uniformly."""
        tokens = math.exp(self.rng.uniform(math.log(16), math.log(self._longest)))
        return [{"role": "assistant", "content": self._text(round(tokens) - 1)}]

    def _text(self, words: int) -> str:
        return "".join(self.rng.choices(self._words, k=words))


if __name__ == "__main__":
    get_context("forkserver").set_forkserver_preload(IMPORTS)
    sys.exit(main())
