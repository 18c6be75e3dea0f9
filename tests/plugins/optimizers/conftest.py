"""A model of 18 thousand weights and a byte-level tokenizer, as checkpoint folders; and log-probabilities by hand.

The ids of a text are spelled out here, byte by byte, so that the tests do not depend on the code they test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from selfreward import (
    Demonstration,
    Dtype,
    LoraOptions,
    ModelConfig,
    ModelRef,
    Optimizer,
    Preference,
    TrainingContext,
    TrainingRow,
    TrainingSet,
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
            lambda done, total, figures: seen.append(figures["loss"]),
        )

    return make


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
