"""What the expected score costs and how well it judges, against the mean of three sampled reviews.

One model judges in both ways: the micro world's, taught with careful verdicts that follow their reasons, and with many
more that are asked for at once ("Write Score: total."). Measured are the seconds for the held-out answers, in turn, and
how often the better one of two answers gets the higher score.

A judge that only learned to reason first cannot do without: asked at once, its scores hold about a millionth of the
probability. The third figure is the share of such verdicts that ``min_mass`` refuses. That judge wants ``thoughts=1``,
which is shown too: it saves two reviews of three and judges as well.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, arguments, report
from selfreward import (
    AnsweredPrompt,
    Candidate,
    Completion,
    Continuations,
    Demonstration,
    Engine,
    Judge,
    Judgement,
    Likelihood,
    ModelConfig,
    ModelRef,
    Prompt,
    Request,
    Rubric,
    ScoredCandidate,
    TrainingContext,
    TrainingSet,
)
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.plugins.judges.llm_cot import LlmCot, LlmCotConfig
from selfreward.plugins.judges.llm_expected import LlmExpected, LlmExpectedConfig
from selfreward.plugins.micro import seeds
from selfreward.plugins.micro.data import MicroConfig, MicroData
from selfreward.plugins.micro.model import MicroModel, MicroModelConfig
from selfreward.plugins.optimizers.sft import Sft, SftConfig
from selfreward.testing import ScriptedContext

REASONS_FIRST = "Check each point, then write Score: total."
AT_ONCE = "Write Score: total."
CAREFUL = Rubric.load("micro")
BLUNT = replace(CAREFUL, template=CAREFUL.template.replace(REASONS_FIRST, AT_ONCE), reply_prefix="")
SAMPLED: dict[str, Any] = {"top_p": 0.95, "max_new_tokens": 40}
REVIEWS = LlmCot(LlmCotConfig(votes=3, **SAMPLED))
EXPECTED = LlmExpected(LlmExpectedConfig())
THINKING = LlmExpected(LlmExpectedConfig(thoughts=1, temperature=0, **SAMPLED))
REPEATS = 5


def teach(folder: Path, reasoned: int, at_once: int) -> ModelRef:
    """M0, fine-tuned on so many verdicts of either kind."""
    verdicts = seeds.eft(0, reasoned)
    for row in seeds.eft(1, at_once):
        verdicts.append(seeds.Exchange(row.prompt.replace(REASONS_FIRST, AT_ONCE), row.reply.split("\n")[-1]))
    rows = [demonstration(row) for row in verdicts]
    m0 = ModelRef("M0", MicroModel(MicroModelConfig()).path(), "M0", ModelConfig())
    for name in ("model", "work"):
        (folder / name).mkdir(parents=True)
    context = TrainingContext(start=m0, reference=m0, out=folder / "model", work=folder / "work", seed=0)
    options = SftConfig(lr=5e-4, warmup=0.08, min_lr_ratio=0.1, batch_size=8, epochs=2)
    Sft(options).update(TrainingSet(Demonstration, len(rows), lambda: iter(rows)), context)
    return ModelRef("M1", str(folder / "model"), str(folder), ModelConfig())


def demonstration(row: seeds.Exchange) -> Demonstration:
    """A human exchange as a row to train on."""
    prompt = Prompt.of(row.prompt, "eft")
    human = Candidate.of(prompt, row.reply, 0, origin="human", model="human", finish_reason="human")
    return Demonstration.of(prompt, ScoredCandidate(human, 0.0))


@dataclass
class EngineContext(ScriptedContext):
    """A judge's context with a real model in it."""

    engine: Any = None

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """What the engine writes."""
        return self.engine.generate(requests)

    def likelihoods(self, requests: Sequence[Continuations]) -> list[list[Likelihood]]:
        """What the engine finds likely."""
        return self.engine.likelihoods(requests)


@dataclass
class Bench:
    """The held-out answers, and the engine of the model that judges them."""

    engine: Engine
    answered: Sequence[AnsweredPrompt]

    def judge(self, judge: Judge, rubric: Rubric, turn: int = 0) -> tuple[float, float, list[Judgement]]:
        """Seconds, pairwise accuracy and the judgements; every turn samples anew."""
        context = EngineContext(run_seed=turn, declared_rubric=rubric, engine=self.engine)
        started = time.perf_counter()
        judged = list(judge.score(self.answered, context))
        return time.perf_counter() - started, self.accuracy(judged), judged

    def accuracy(self, judged: Sequence[Judgement]) -> float:
        """Share of the pairs of answers with different true scores that are scored in that order; a tie is wrong."""
        scores = iter([judgement.score for judgement in judged])
        right = pairs = 0
        for group in self.answered:
            ranked = [(candidate.rank or 0, next(scores)) for candidate in group.candidates]
            for (rank, score), (other, rival) in itertools.permutations(ranked, 2):
                pairs += rank < other
                right += rank < other and score is not None and rival is not None and score > rival
        return right / pairs


def main() -> int:
    """Teach, judge in turn, compare."""
    given = arguments(__doc__ or "")
    # before torch is imported: for models this small one thread is the fastest
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    groups = MicroData(MicroConfig()).split("judge_evaluation", 0)
    bench = Bench(TransformersEngine(TransformersConfig()), groups[:40] if given.quick else groups)
    reviews, expected = [], []
    with tempfile.TemporaryDirectory() as folder:
        bench.engine.open(teach(Path(folder, "both"), 100, 2000))
        for turn in range(REPEATS):
            reviews.append(bench.judge(REVIEWS, CAREFUL, turn)[:2])
            expected.append(bench.judge(EXPECTED, BLUNT, turn)[:2])
        thinking = [bench.judge(THINKING, CAREFUL)[:2]]
        bench.engine.open(teach(Path(folder, "reasons"), 100, 0))
        _, _, unreasoned = bench.judge(EXPECTED, CAREFUL)
    table = {"three sampled reviews": reviews, "expected score": expected, "... after one greedy review": thinking}
    means = {name: tuple(map(median, zip(*turns, strict=True))) for name, turns in table.items()}
    for name, (seconds, accuracy) in means.items():
        print(f"{name:<27} {seconds:6.2f} s  pairwise accuracy {accuracy:.3f}")
    (slow, often), (quick, instead), _ = means.values()
    refused = sum(judgement.score is None for judgement in unreasoned) / len(unreasoned)
    figures = [
        Figure("seconds of three reviews over those of the expected score", slow / quick, 5, "higher"),
        Figure("pairwise accuracy gained over three reviews", instead - often, -0.02, "higher"),
        Figure("verdicts refused where the reasons are missing", refused, 0.95, "higher"),
    ]
    return report(figures, given.json)


if __name__ == "__main__":
    sys.exit(main())
