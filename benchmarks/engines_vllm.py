"""What engine=vllm costs beside vLLM: the same requests through it and through a bare ``LLM.generate``.

Both use one engine of vLLM, in turn (A B A B ...). Ours is given conversations and gives back text; the bare call is
given token ids, prepared beforehand, and leaves tokens. Model: the micro model (0.7 M parameters, vocabulary 480) on a
CPU, one thread; half the prompts are instructions (about 20 tokens), the others lists of tasks and reviews (about 100
to 200); replies of up to 64 tokens, two per prompt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, arguments, report
from benchmarks.same_samples import micro_model, requests, running
from selfreward import Request, Sampling
from selfreward.plugins.engines.vllm.engine import VllmConfig, VllmEngine

if TYPE_CHECKING:
    from vllm import LLM

GOAL = 0.97


def raw(llm: LLM, prompts: Sequence[list[int]], asked: Sequence[Request], stops: Sequence[int]) -> int:
    """Tokens that ``LLM.generate`` writes to the same prompts, with the same settings."""
    from vllm import SamplingParams, TokensPrompt

    params = [
        SamplingParams(
            n=request.n,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            seed=request.seed,
            max_tokens=request.sampling.max_new_tokens,
            stop_token_ids=list(stops),
            detokenize=False,
        )
        for request in asked
    ]
    llm.reset_prefix_cache()  # as engine=vllm does, so that both start from nothing
    outputs = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], params, use_tqdm=False)
    return sum(len(reply.token_ids) for output in outputs for reply in output.outputs)


def speed(work: Callable[[], int]) -> float:
    """Tokens per second of one run."""
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def vllm_against_raw(quick: bool) -> list[Figure]:
    """Our throughput over that of a bare ``LLM.generate``: medians of runs in turn."""
    asked = requests(20 if quick else 60, Sampling(0.7, 0.9, max_new_tokens=64), n=2)
    asked += [request for request in asked if not request.reply_prefix and len(request.messages[0]["content"]) < 200]
    chat = micro_model().chat()
    prompts = [chat.encode(request.messages, request.reply_prefix) for request in asked]
    stops = sorted(chat.stop_ids)
    with running(VllmEngine(VllmConfig(kv_cache_gib=0.5))) as engine:
        llm = engine._engines[0]  # type: ignore[attr-defined]

        def ours() -> int:
            return sum(len(reply.token_ids) for group in engine.generate(asked) for reply in group)

        def theirs() -> int:
            return raw(llm, prompts, asked, stops)

        assert ours() == theirs()  # and both are warm
        rates = [(speed(ours), speed(theirs)) for _ in range(5 if quick else 9)]
    through, bare = (median(column) for column in zip(*rates, strict=True))
    print(f"{sum(request.n for request in asked)} replies; through engine=vllm {through:.0f} tokens/s, bare {bare:.0f}")
    return [Figure("engine=vllm: throughput over that of LLM.generate", through / bare, GOAL, "higher")]


def main() -> int:
    """Measure and report."""
    given = arguments(__doc__ or "")
    return report(vllm_against_raw(given.quick), given.json)


if __name__ == "__main__":
    sys.exit(main())
