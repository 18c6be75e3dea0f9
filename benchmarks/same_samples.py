"""How many samples are the same, token for token, whichever engine draws them and however it batches.

Every sample has a random stream of its own, and both engines do the same arithmetic on it, so in float32 they should
differ only where the last bits of two sums do: seldom enough to reuse one engine's samples under another. Compared are
the micro model's answers, new tasks and reviews, at the three samplings that papers use most, one and four per prompt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the fastest for a model this small
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks.figures import Figure, arguments, report
from selfreward import Engine, Message, ModelRef, Request, Rubric, Sampling
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.plugins.engines.vllm.engine import VllmConfig, VllmEngine
from selfreward.plugins.micro import seeds
from selfreward.plugins.micro.model import MicroModel, MicroModelConfig
from selfreward.plugins.prompt_generators.self_instruct import ask

GOAL = 0.999
SAMPLINGS = (
    Sampling(0.7, 0.9, max_new_tokens=64),
    Sampling(1.0, 1.0, top_k=20, max_new_tokens=64),
    Sampling(0.7, 0.9, top_k=50, max_new_tokens=64),
)
Conversation = tuple[list[Message], str]


def micro_model() -> ModelRef:
    """M0 of the micro world."""
    config = MicroModelConfig()
    return ModelRef("M0", MicroModel(config).path(), "M0", config)


def conversations(count: int) -> list[Conversation]:
    """``count`` instructions to answer, as many lists of tasks to go on with, and as many answers to review.

    Returns:
        Messages, and the text the reply is made to start with.
    """
    asked = seeds.ift(0, max(count, 16))
    rubric = Rubric.load("micro")
    found: list[Conversation] = []
    for place, row in enumerate(asked[:count]):
        shown = [asked[(place + step) % len(asked)].prompt for step in range(8)]
        review = rubric.render(instruction=row.prompt, response=row.reply)
        found += [
            ([{"role": "user", "content": row.prompt}], ""),
            (list(ask(shown)), ""),
            ([{"role": "user", "content": review}], rubric.reply_prefix),
        ]
    return found


def requests(count: int, sampling: Sampling, n: int) -> list[Request]:
    """``n`` replies to each of three times ``count`` conversations."""
    return [
        Request(messages, sampling, 1000 * place, n, prefix)
        for place, (messages, prefix) in enumerate(conversations(count))
    ]


@contextmanager
def running(engine: Engine) -> Iterator[Engine]:
    """The engine, open on the micro model."""
    engine.open(micro_model())
    try:
        yield engine
    finally:
        engine.close()


def samples(engine: Engine, count: int) -> list[list[int]]:
    """The tokens of every reply, in a fixed order."""
    with running(engine):
        return [
            reply.token_ids
            for sampling in SAMPLINGS
            for n in (1, 4)
            for group in engine.generate(requests(count, sampling, n))
            for reply in group
        ]


def share(some: Sequence[list[int]], others: Sequence[list[int]]) -> float:
    """Share of equal entries."""
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(some)


def same_samples(quick: bool) -> list[Figure]:
    """The shares, between engines and between two batch budgets of each."""
    count = 12 if quick else 48
    transformers = samples(TransformersEngine(TransformersConfig()), count)
    small = samples(TransformersEngine(TransformersConfig(max_batch_tokens=2048)), count)
    vllm = samples(VllmEngine(VllmConfig()), count)
    few = samples(VllmEngine(VllmConfig(max_num_seqs=16, max_num_batched_tokens=1024)), count)
    print(f"{len(vllm)} samples, {sum(map(len, vllm))} tokens")
    return [
        Figure("equal samples: transformers and vllm", share(transformers, vllm), GOAL, "higher"),
        Figure("equal samples: transformers, 16384 and 2048 tokens", share(transformers, small), GOAL, "higher"),
        Figure("equal samples: vllm, 256 and 16 sequences", share(vllm, few), GOAL, "higher"),
    ]


def main() -> int:
    """Measure and report."""
    given = arguments(__doc__ or "")
    return report(same_samples(given.quick), given.json)


if __name__ == "__main__":
    sys.exit(main())
