"""A model of 18 thousand weights and a byte-level tokenizer, as checkpoint folders; and log-probabilities by hand.

The ids of a text are spelled out here, byte by byte, so that the tests do not depend on the code they test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfreward import (
    AnsweredPrompt,
    Candidate,
    Demonstration,
    Dtype,
    Instruction,
    Judgement,
    LoraOptions,
    ModelConfig,
    ModelRef,
    Optimizer,
    Preference,
    Prompt,
    Request,
    Sampling,
    TrainingContext,
    TrainingRow,
    TrainingSet,
    digest,
)

CONTROL = ("<|pad|>", "<|end|>", "<|bos|>", "<|user|>", "<|assistant|>")
PAD, END, BOS, USER, ASSISTANT = range(5)
TEMPLATE = (
    "<|bos|>{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def pieces() -> list[str]:
    """The vocabulary: control tokens and the 256 bytes."""
    from tokenizers import pre_tokenizers

    return [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]


def make_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A tiny Llama with tied embeddings and random weights, its tokenizer and its template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    roles = dict(zip(("pad_token", "eos_token", "bos_token"), CONTROL, strict=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, additional_special_tokens=list(CONTROL[3:]), chat_template=TEMPLATE, **roles
    )
    shape = {
        "vocab_size": len(pieces()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": BOS,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**(shape | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that training starts from."""
    return make_checkpoint(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return make_checkpoint(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def context(tmp_path: Path, checkpoint: Path) -> Callable[..., TrainingContext]:
    """Makes a training context with folders of its own; ``losses`` are appended to the list that is given."""
    numbers = iter(range(100))

    def make(
        start: Path = checkpoint,
        reference: Path | None = None,
        *,
        seed: int = 7,
        lora: int = 0,
        lora_dropout: float = 0.0,
        dtype: Dtype = Dtype.auto,
        losses: list[float] | None = None,
    ) -> TrainingContext:
        config = ModelConfig(lora=LoraOptions(r=lora, alpha=8.0, dropout=lora_dropout), dtype=dtype)
        folder = tmp_path / str(next(numbers))
        for name in ("out", "work"):
            (folder / name).mkdir(parents=True)
        first, second = (ModelRef("M1", str(path), str(path), config) for path in (start, reference or start))
        seen = [] if losses is None else losses
        return TrainingContext(
            first,
            second,
            folder / "out",
            folder / "work",
            seed,
            lambda done, total, figures: seen.append(figures.get("loss", figures.get("reward", 0.0))),
        )

    return make


class EngineRollouts:
    """Answers of the transformers engine with the weights it is given, scored by a function of (answer, step)."""

    def __init__(
        self,
        start: ModelRef,
        score: Callable[[Candidate, int], float | None],
        n: int = 4,
        temperature: float = 1.0,
        max_new_tokens: int = 6,
    ) -> None:
        from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

        self.n, self._start, self._score = n, start, score
        self._how = Sampling(temperature, max_new_tokens=max_new_tokens)
        self._engine = TransformersEngine(TransformersConfig())
        self.sampled: list[tuple[int, list[AnsweredPrompt]]] = []
        """(step, answers) of every call."""
        self.judged: list[tuple[int, list[Judgement]]] = []
        """(step, judgements) of every call."""
        self.weights: list[dict[str, Any]] = []
        """Copies of the weights that were given in every call."""

    def sample(self, prompts: Sequence[Prompt], weights: Mapping[str, Any], step: int) -> list[AnsweredPrompt]:
        """``n`` answers to each prompt."""
        self.weights.append({name: weight.clone() for name, weight in weights.items()})
        key = f"step {step} of {id(self)}"
        self._engine.open(replace(self._start, key=key, weights=weights))
        seeds = [int(digest(step, prompt.prompt_id), 16) % 2**40 for prompt in prompts]
        requests = [Request(p.messages, self._how, seed, self.n) for p, seed in zip(prompts, seeds, strict=True)]
        answered = []
        for prompt, replies in zip(prompts, self._engine.generate(requests), strict=True):
            same: dict[str, Any] = {"origin": "M1", "model": "M1"}
            candidates = [
                Candidate.of(prompt, r.text, k, token_ids=r.token_ids, finish_reason=r.finish_reason, **same)
                for k, r in enumerate(replies)
            ]
            answered.append(AnsweredPrompt(prompt, candidates))
        self.sampled.append((step, answered))
        return answered

    def score(self, answered: Sequence[AnsweredPrompt], step: int) -> list[Judgement]:
        """A judgement for every answer."""
        judgements = []
        for candidate in (c for group in answered for c in group.candidates):
            score = self._score(candidate, step)
            judgements.append(Judgement(candidate.candidate_id, "test", "-", "-", [score], score, [""]))
        self.judged.append((step, judgements))
        return judgements


@pytest.fixture
def online(context: Callable[..., TrainingContext]) -> Callable[..., TrainingContext]:
    """Makes a training context with rollouts; what is not about them is handed to ``context``."""

    def make(
        score: Callable[[Candidate, int], float | None],
        *,
        n: int = 4,
        temperature: float = 1.0,
        max_new_tokens: int = 6,
        **about: Any,
    ) -> TrainingContext:
        made = context(**about)
        rollouts = EngineRollouts(made.start, score, n, temperature, max_new_tokens)
        return replace(made, rollouts=rollouts, temperature=temperature)

    return make


@pytest.fixture(scope="session")
def instructions() -> Callable[..., list[Instruction]]:
    """Prompts alone."""
    return lambda *texts: [Instruction.of(Prompt.of(text, "test")) for text in texts]


@pytest.fixture
def update() -> Callable[..., dict[str, float]]:
    """Runs an optimizer on rows."""

    def run(optimizer: Optimizer, rows: Sequence[TrainingRow], context: TrainingContext) -> dict[str, float]:
        return dict(optimizer.update(TrainingSet(type(rows[0]), len(rows), lambda: iter(rows)), context))

    return run


@pytest.fixture(scope="session")
def spell() -> Callable[[str], list[int]]:
    """The ids of an ASCII text without white space: one per character, never a control token."""
    known = {piece: i for i, piece in enumerate(pieces())}
    return lambda text: [known[character] for character in text]


@pytest.fixture(scope="session")
def spell_prompt(spell: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """The ids of a prompt of one user turn, in the template."""
    return lambda text: [BOS, USER, *spell(text), END, ASSISTANT]


@pytest.fixture(scope="session")
def token_log_probs() -> Callable[..., Any]:
    """log p of each answer token in float64, one sequence at a time, from the logits."""

    def compute(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        import torch

        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        before = logits[len(prompt) - 1 : -1]
        return before.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]

    return compute


@pytest.fixture(scope="session")
def load64() -> Callable[[Path], Any]:
    """A checkpoint in float64."""

    def load(folder: Path) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)

    return load


@pytest.fixture(scope="session")
def pair() -> Callable[..., Preference]:
    """A pair of texts, or of sampled tokens."""

    def make(
        prompt: str, chosen: str, rejected: str, chosen_ids: Sequence[int] = (), rejected_ids: Sequence[int] = ()
    ) -> Preference:
        turns = [
            [{"role": role, "content": text}]
            for role, text in (("user", prompt), ("assistant", chosen), ("assistant", rejected))
        ]
        return Preference(*turns, 4.0, 1.0, list(chosen_ids), list(rejected_ids), "p1", "c1", "c2")

    return make


@pytest.fixture(scope="session")
def demonstration() -> Callable[..., Demonstration]:
    """An answer to imitate, as text or as sampled tokens."""

    def make(prompt: str, answer: str, token_ids: Sequence[int] = ()) -> Demonstration:
        turns = [[{"role": role, "content": text}] for role, text in (("user", prompt), ("assistant", answer))]
        return Demonstration(*turns, 5.0, list(token_ids), "p1", "c1")

    return make
