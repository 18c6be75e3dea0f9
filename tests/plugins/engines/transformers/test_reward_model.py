"""Rewards against the head's product by hand in float64, one row at a time, and against transformers' own forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from selfreward import Continuations, ModelConfig, ModelRef, Request, Sampling, StageError, UserError
from selfreward.plugins.engines.transformers import reward_model
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

CONTEXT = 96
CONTROLS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
END = 2
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# the end-of-turn token is what pads, as in a checkpoint whose tokenizer has no padding token of its own
SMALL: dict[str, Any] = {"vocab_size": 259, "initializer_range": 0.2, "num_labels": 1, "pad_token_id": END}
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, **SHAPE, max_position_embeddings=CONTEXT),
    "mistral": MistralConfig(
        **SMALL, **SHAPE, max_position_embeddings=CONTEXT, num_key_value_heads=1, sliding_window=16
    ),
    "gpt2": GPT2Config(**SMALL, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2),
    "mpt": MptConfig(**SMALL, max_seq_len=CONTEXT, d_model=32, n_layers=2, n_heads=2),  # takes no position_ids
}


def save_tokenizer(folder: Path, *more: str) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(CONTROLS + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*CONTROLS, *more])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=CHATML).save_pretrained(
        folder
    )


def save(folder: Path, config: Any, kind: Any = AutoModelForSequenceClassification, **settings: Any) -> Path:
    torch.manual_seed(0)
    model = kind.from_config(config)
    for name, value in settings.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(root / name, config) for name, config in ARCHITECTURES.items()}


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("causal"), ARCHITECTURES["llama"], AutoModelForCausalLM)


def ref(folder: Path) -> ModelRef:
    return ModelRef("reward", str(folder), str(folder), ModelConfig())


def opened(folder: Path, **options: Any) -> TransformersEngine:
    engine = TransformersEngine(TransformersConfig(**options))
    engine.open(ref(folder))
    return engine


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def questions() -> list[Continuations]:
    """Prompts and replies of mixed lengths, some equal; texts, an empty one, and ids with and without their end."""
    replies: list[str | list[int]] = ["", "yes", "it is so, " * 2, [40, 50, END], [40, 50], "yes", [END]]
    return [Continuations(say("abc" * (1 + (5 * i) % 11) + str(i - i % 3)), replies[: 1 + i % 7]) for i in range(14)]


def spelled(folder: Path, asked: list[Continuations]) -> list[list[int]]:
    """What is read: the template by hand, and the reply with its end-of-turn token."""
    chat = ref(folder).chat()
    rows = []
    for request in asked:
        for reply in request.replies:
            ids = [*chat.encode(request.messages), *([] if isinstance(reply, str) else reply)]
            rows.append([*ids, *chat.tokenizer(reply)["input_ids"], END] if isinstance(reply, str) else ids)
    return rows


def by_hand(folder: Path, rows: list[list[int]]) -> list[float]:
    """Each row alone in float64, without padding: the head's weights times the last hidden state."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        last = [model.base_model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in rows]
        return [float(hidden @ model.score.weight[0]) for hidden in last]


def flat(rewards: list[list[float | None]]) -> list[float | None]:
    return [reward for group in rewards for reward in group]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [16384, 150])
def test_rewards_equal_one_row_at_a_time(folders: dict[str, Path], architecture: str, budget: int) -> None:
    folder, asked = folders[architecture], questions()
    counts: list[int] = []
    engine = opened(folder, max_batch_tokens=budget)
    rewards = engine.rewards(asked, counts.append)
    assert [len(group) for group in rewards] == [len(request.replies) for request in asked]
    expected = by_hand(folder, spelled(folder, asked))
    assert len({round(value, 3) for value in expected}) > 20
    assert flat(rewards) == pytest.approx(expected, abs=2e-5)
    assert sum(counts) == len(expected)
    assert engine.rewards(asked) == rewards
    assert opened(folder, max_batch_tokens=budget).rewards(asked[::-1]) == rewards[::-1]


def test_the_last_token_is_known_by_its_place_where_the_end_token_pads(folders: dict[str, Path]) -> None:
    folder = folders["llama"]
    asked = [Continuations(say("abc"), ["yes", "it is so"])]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = spelled(folder, asked)
    with torch.no_grad():
        by_value = [float(model(torch.tensor([ids])).logits) for ids in rows]
        model.config.pad_token_id = 258  # occurs in no row
        padded = [[*ids, *[258] * (60 - len(ids))] for ids in rows]
        plain = model(torch.tensor(padded)).logits[:, 0].tolist()
    rewards = flat(opened(folder).rewards(asked))
    assert rewards == pytest.approx(plain, abs=1e-5)
    assert rewards != pytest.approx(by_value, abs=0.05)  # at the token before the end of the turn


def test_what_is_run_together_keeps_to_the_budget(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read, sizes = reward_model.RewardModel._read, []

    def counted(model: Any, sequences: Any) -> torch.Tensor:
        sizes.append((len(sequences), max(map(len, sequences))))
        return read(model, sequences)

    monkeypatch.setattr(reward_model.RewardModel, "_read", counted)
    asked = questions()
    opened(folders["llama"], max_batch_tokens=150).rewards(asked)
    assert all(rows * width <= 150 or rows == 1 for rows, width in sizes)
    assert max(rows for rows, _ in sizes) > 2
    assert [width for _, width in sizes] == sorted((width for _, width in sizes), reverse=True)
    different = set(map(tuple, spelled(folders["llama"], asked)))
    assert sum(rows for rows, _ in sizes) == len(different)  # equal ones are read once


def test_the_shift_of_the_config_is_taken_off(folders: dict[str, Path], tmp_path: Path) -> None:
    asked = questions()
    shifted = save(tmp_path, ARCHITECTURES["llama"], selfreward_reward_shift=1.25)
    assert json.loads((shifted / "config.json").read_text())["selfreward_reward_shift"] == 1.25
    before = flat(opened(folders["llama"]).rewards(asked))
    assert flat(opened(shifted).rewards(asked)) == pytest.approx([value - 1.25 for value in before], abs=1e-12)


def test_what_does_not_fit_has_no_reward(folders: dict[str, Path]) -> None:
    engine = opened(folders["llama"])
    room = CONTEXT - len(ref(folders["llama"]).chat().encode(say("a" * 20)))
    counts: list[int] = []
    asked = [Continuations(say("a" * 20), [[40] * room, [40] * (room + 1), "b" * room, "b" * (room - 1), []])]
    [[fits, longer, with_its_end, whole, nothing]] = engine.rewards(asked, counts.append)
    assert (longer, with_its_end, nothing) == (None, None, None)
    assert isinstance(fits, float)
    assert isinstance(whole, float)
    assert sum(counts) == 5
    assert engine.rewards([]) == []


def test_a_model_does_only_what_it_is_made_for(folders: dict[str, Path], causal: Path) -> None:
    engine = opened(folders["llama"])
    for work in (
        lambda: engine.generate([Request(say("a"), Sampling(), 0)]),
        lambda: engine.likelihoods([Continuations(say("a"), ["b"])]),
    ):
        with pytest.raises(StageError, match=r"llama is a reward model, which scores replies.*judge\.model"):
            work()
    engine.open(ref(causal))
    with pytest.raises(StageError, match=r"causal\d* is a language model and gives no rewards.*judge\.model=reward"):
        engine.rewards([Continuations(say("a"), ["b"])])
    assert engine.generate([Request(say("a"), Sampling(max_new_tokens=2), 0)])
    engine.open(ref(folders["llama"]))
    assert engine.rewards([Continuations(say("a"), ["b"])])


def test_precision_of_the_head_is_float32(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelRef, "torch_dtype", lambda self: "bfloat16")
    rewards = flat(opened(folders["llama"]).rewards(questions()))
    coarse = [float(torch.tensor(value).bfloat16()) for value in rewards]
    assert sum(a != b for a, b in zip(rewards, coarse, strict=True)) > len(rewards) / 2


def test_checkpoints_that_are_no_reward_models_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    assert [opened(folder).problems(ref(folder)) for folder in folders.values()] == [[]] * len(folders)
    two = LlamaConfig(**{**SMALL, "num_labels": 2}, **SHAPE)
    with pytest.raises(UserError, match="gives one number; this classifier has 2 labels"):
        opened(save(tmp_path / "two", two))
    with pytest.raises(UserError, match="reward models that are causal; t5 is not"):
        opened(save(tmp_path / "t5", T5Config(vocab_size=259, d_model=16, num_layers=1, num_heads=2, num_labels=1)))
    bert = BertConfig(vocab_size=259, **SHAPE, num_labels=1)
    with pytest.raises(UserError, match=r"a linear head `score` over the last token; a BertForSeq.* has none"):
        opened(save(tmp_path / "bert", bert))

    larger = save(tmp_path / "larger", ARCHITECTURES["llama"])
    save_tokenizer(larger, "<|one|>", "<|two|>")
    with pytest.raises(UserError, match=r"tokenizer has 261 tokens and the reward model knows 259;.*embeddings\(261\)"):
        opened(larger)

    headless = save(tmp_path / "headless", ARCHITECTURES["llama"], AutoModelForCausalLM)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(UserError, match=r"weights are missing from the checkpoint \(score\.weight\)"):
        opened(headless)
