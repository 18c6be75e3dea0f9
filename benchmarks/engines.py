"""What an engine brings, in new tokens per second, against what people write by hand.

**transformers**, one CPU thread, float32, n = 4 replies to each prompt at temperature 0.7 and top-p 0.9, batches of
16,384 tokens (padded prompt + longest reply), on two models with the same tokenizer of 480 token ids:

- *micro*: the embedded M0 (0.7 M parameters: 4 layers, hidden size 128, 4 heads of 32) answers instructions of its
  world: prompts of 10 to 17 tokens, replies of 7 to 34 tokens, at most 48.
- *spread*: a randomly initialised Llama of that size, but with 2 heads of keys and values; 24 token ids end a turn, so
  nearly uniform draws end anywhere: replies of 1 to 128 tokens, 25 in the mean. Prompts of 25 to 240 tokens.

The careful script sorts by length, pads on the left, fills its batches up to the same number of tokens, asks
``model.generate`` for all samples of a prompt with ``num_return_sequences``, and runs under ``inference_mode``; the
naive one runs the same ``generate`` row by row, on a few of the rows. Each is run in turn with the engine.

**vllm**, where it is installed: see ``engines_vllm``.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, arguments, report
from selfreward import Engine, ModelConfig, ModelRef, Request, Sampling

HOW = Sampling(temperature=0.7, top_p=0.9)
SAMPLES = 4
BUDGET = 16384
ROUNDS = 5
Run = Callable[[Sequence[Request]], int]
"""Writes the replies to requests; returns the number of new tokens."""


def main() -> int:
    """Measure in turn and print the ratios."""
    given = arguments(__doc__ or "")
    figures = transformers_against_generate(given.quick)
    if importlib.util.find_spec("vllm"):
        from benchmarks.engines_vllm import vllm_against_raw

        figures += vllm_against_raw(given.quick)
    return report(figures, given.json)


def transformers_against_generate(quick: bool) -> list[Figure]:
    """The engine against a careful and against a naive ``model.generate``."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        micro, spread = micro_model(), spread_model(Path(folder))
        answers = micro_requests(48 if quick else 128)
        anything = spread_requests(24 if quick else 128)
        careful = compare("micro", micro, answers, lambda raw: raw.batched)
        careful_spread = compare("spread", spread, anything, lambda raw: raw.batched)
        few = answers[:: len(answers) // 2]
        naive = compare("micro, row by row", micro, answers, lambda raw: lambda _: raw.one_by_one(few))
    return [
        Figure("transformers engine against a careful batched generate, micro", careful, 1.5, "higher"),
        Figure("transformers engine against a careful batched generate, spread", careful_spread, 1.5, "higher"),
        Figure("transformers engine against generate row by row, micro", naive, 10, "higher"),
    ]


def compare(name: str, model: ModelRef, asked: Sequence[Request], theirs: Callable[[RawGenerate], Run]) -> float:
    """Ratio of the median tokens per second of two runs taken in turn, after one of each to warm up."""
    engine, raw = open_engine(model), RawGenerate(model)

    def ours(some: Sequence[Request]) -> int:
        return sum(len(reply.token_ids) for replies in engine.generate(some) for reply in replies)

    lengths = sorted(len(reply.token_ids) for replies in engine.generate(asked) for reply in replies)
    prompts = sorted(raw.length(request) for request in asked)
    other = theirs(raw)
    other(asked)
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for run, into in zip((ours, other), rates, strict=True):
            started = time.perf_counter()
            tokens = run(asked)
            into.append(tokens / (time.perf_counter() - started))
    own, others = map(statistics.median, rates)
    print(
        f"{name}: {raw.describe()}; {len(prompts)} prompts of {prompts[0]} to {prompts[-1]} tokens x {SAMPLES}; "
        f"replies of {lengths[0]} to {lengths[-1]} tokens, median {statistics.median(lengths):g}, mean "
        f"{statistics.fmean(lengths):.0f}; engine {own:.0f} tokens/s, generate {others:.0f}"
    )
    engine.close()
    return own / others


def micro_model() -> ModelRef:
    """The embedded M0."""
    import selfreward.plugins.micro

    folder = Path(str(selfreward.plugins.micro.__file__)).parent / "m0"
    return ModelRef("M0", str(folder), "M0", ModelConfig())


def micro_requests(count: int) -> list[Request]:
    """Instructions of the micro world."""
    from selfreward.plugins.micro.data import MicroConfig, MicroData

    how = replace(HOW, max_new_tokens=48)
    rows = MicroData(MicroConfig(ift=count)).split("ift", 0)
    return [Request(row.prompt.messages, how, SAMPLES * i, SAMPLES) for i, row in enumerate(rows)]


def spread_model(folder: Path) -> ModelRef:
    """The random Llama, with the micro model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    micro_model().chat().save(folder)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=480, max_position_embeddings=1024, **shape, **heads)).save_pretrained(
        folder
    )
    ends = json.dumps({"eos_token_id": [1, *range(100, 123)]})
    (folder / "generation_config.json").write_text(ends, encoding="utf-8")
    return ModelRef("random", str(folder), "random", ModelConfig())


def spread_requests(count: int) -> list[Request]:
    """Conversations of 25 to 240 tokens, most of them short, in random order."""
    rng = random.Random(0)
    how = replace(HOW, max_new_tokens=128)
    words = ["write", "a", "short", "tale", "about", "the", "lamp", "and", "the", "river", "with", "one", "question"]
    texts = [" ".join(rng.choices(words, k=round(10 * 12 ** rng.random()))) for _ in range(count)]
    return [Request([{"role": "user", "content": t}], how, SAMPLES * i, SAMPLES) for i, t in enumerate(texts)]


def open_engine(model: ModelRef) -> Engine:
    """``engine=transformers`` on that model."""
    from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

    engine = TransformersEngine(TransformersConfig(max_batch_tokens=BUDGET, threads=1))
    engine.open(model)
    return engine


class RawGenerate:
    """What people write with ``model.generate``."""

    def __init__(self, model: ModelRef) -> None:
        from transformers import AutoModelForCausalLM

        self.chat = model.chat()
        self.ends = sorted(self.chat.stop_ids)
        self.model: Any = AutoModelForCausalLM.from_pretrained(model.path, dtype="float32").eval()

    def describe(self) -> str:
        """The model in a few words."""
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"{self.model.config.model_type}, {size:.1f} M parameters, vocabulary {self.model.config.vocab_size}"

    def length(self, request: Request) -> int:
        """Tokens of a prompt."""
        return len(self.chat.encode(request.messages))

    def batched(self, asked: Sequence[Request]) -> int:
        """Sorted by length, padded on the left, as many prompts at once as the budget holds."""
        how = asked[0].sampling
        prompts = sorted((self.chat.encode(request.messages) for request in asked), key=len, reverse=True)
        tokens = 0
        while prompts:
            size = max(1, BUDGET // (len(prompts[0]) + how.max_new_tokens) // SAMPLES)
            tokens += self._generate(prompts[:size], SAMPLES, how)
            prompts = prompts[size:]
        return tokens

    def one_by_one(self, asked: Sequence[Request]) -> int:
        """One row at a time."""
        prompts = [self.chat.encode(request.messages) for request in asked]
        return sum(self._generate([prompt], 1, asked[0].sampling) for prompt in prompts for _ in range(SAMPLES))

    def _generate(self, prompts: list[list[int]], samples: int, how: Sampling) -> int:
        import torch

        width = max(map(len, prompts))
        ids = torch.tensor([[self.chat.pad_id] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=how.temperature,
                top_p=how.top_p,
                top_k=0,
                max_new_tokens=how.max_new_tokens,
                num_return_sequences=samples,
                eos_token_id=self.ends,
                pad_token_id=self.chat.pad_id,
            )
        ended = torch.isin(out[:, width:], torch.tensor(self.ends))
        before_end = (ended.cumsum(1) - ended.long()) == 0  # what follows the first end is padding
        return int(before_end.sum())


if __name__ == "__main__":
    sys.exit(main())
