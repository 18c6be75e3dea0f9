"""The batched engine against independent references: ``generate`` (greedy), an unbatched, uncached loop (sampling)."""

from __future__ import annotations

import json
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from selfreward import Completion, ModelConfig, ModelRef, Request, Sampling, UserError
from selfreward.plugins.engines import transformers as engine_module
from selfreward.plugins.engines.transformers import (
    TransformersConfig,
    TransformersEngine,
    _batches,
    _Row,
    top_k_filter,
    top_p_filter,
)

CONTEXT = 96
CONTROLS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMALL: dict[str, Any] = {"vocab_size": 259, "max_position_embeddings": CONTEXT, "initializer_range": 0.2}
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, **SHAPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**SMALL, **SHAPE, num_key_value_heads=1, sliding_window=16),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=2),
}


def save_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(CONTROLS + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(CONTROLS)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=CHATML
    ).save_pretrained(folder)


def save_model(folder: Path, architecture: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]).save_pretrained(folder)
    save_tokenizer(folder)
    # an untrained model hardly ever writes its end token: every tenth byte ends a reply as well
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, *range(7, 259, 10)]}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for name in ARCHITECTURES:
        save_model(root / name, name)
    return {name: root / name for name in ARCHITECTURES}


def ref(folder: Path, key: str | None = None) -> ModelRef:
    return ModelRef("M1", str(folder), key or str(folder), ModelConfig())


def opened(folder: Path, **options: Any) -> TransformersEngine:
    engine = TransformersEngine(TransformersConfig(**options))
    engine.open(ref(folder))
    return engine


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> TransformersEngine:
    return opened(folders["llama"])


def requests(sampling: Sampling, count: int = 12, n: int = 2) -> list[Request]:
    """Prompts of mixed lengths; every third one equals an earlier one."""
    texts = ["abc" * (1 + (5 * i) % 11) + str(i - i % 3) for i in range(count)]
    return [Request([{"role": "user", "content": t}], sampling, seed=100 * i, n=n) for i, t in enumerate(texts)]


def flat(replies: list[list[Completion]]) -> list[list[int]]:
    return [completion.token_ids for reply in replies for completion in reply]


def agreement(some: list[list[int]], others: list[list[int]]) -> float:
    assert len(some) == len(others)
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(some)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [16384, 200])
def test_greedy_equals_generate(folders: dict[str, Path], architecture: str, budget: int) -> None:
    engine = opened(folders[architecture], max_batch_tokens=budget)
    asked = requests(Sampling(temperature=0, max_new_tokens=24))
    chat = ref(folders[architecture]).chat()
    model = AutoModelForCausalLM.from_pretrained(folders[architecture])
    for request, replies in zip(asked, engine.generate(asked), strict=True):
        prompt = chat.encode(request.messages)
        out = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=sorted(chat.stop_ids),
            pad_token_id=0,
        )
        assert [r.token_ids for r in replies] == [out[0, len(prompt) :].tolist()] * 2


def reference_sample(model: Any, prompt: list[int], stops: frozenset[int], sampling: Sampling, seed: int) -> list[int]:
    """One row alone, without padding and without a cache."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < sampling.max_new_tokens and not (ids and ids[-1] in stops):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, -1].float() / sampling.temperature
        kept = reference_filter(logits.numpy(), sampling.top_k, sampling.top_p)
        p = logits.masked_fill(~torch.from_numpy(kept), -math.inf).softmax(-1)
        q = torch.empty(len(p), dtype=torch.float64).exponential_(generator=generator)
        ids.append(int((p.double() / q).argmax()))
    return ids


def reference_filter(logits: np.ndarray, k: int, p: float) -> np.ndarray:
    """Which tokens stay, by walking down from the most probable one."""
    order = np.argsort(-logits.astype(np.float64), kind="stable")[: k or None]
    weights = np.exp(logits[order].astype(np.float64) - logits.max())
    weights /= weights.sum()
    mass, kept = 0.0, np.zeros(len(logits), dtype=bool)
    for token, weight in zip(order, weights, strict=True):
        kept[token] = True
        mass += weight
        if mass >= p:
            break
    return kept


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 0, 24), Sampling(0.7, 0.9, 0, 24), Sampling(1.3, 0.8, 20, 24)])
def test_a_sampled_row_equals_the_row_alone(
    folders: dict[str, Path], engine: TransformersEngine, sampling: Sampling
) -> None:
    asked = requests(sampling, count=20)
    chat = ref(folders["llama"]).chat()
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    expected = [
        reference_sample(model, chat.encode(r.messages), chat.stop_ids, sampling, r.seed + k)
        for r in asked
        for k in (0, 1)
    ]
    replies = flat(engine.generate(asked))
    assert len({len(ids) for ids in replies}) > 5  # rows end at different times
    # float32 sums differ in the last bits between batch sizes, which may flip a draw now and then
    assert agreement(replies, expected) >= 0.95


def test_sample_k_equals_a_request_with_seed_plus_k(engine: TransformersEngine) -> None:
    asked = requests(Sampling(max_new_tokens=16), count=6, n=3)
    single = [Request(r.messages, r.sampling, r.seed + k) for r in asked for k in range(3)]
    assert flat(engine.generate(asked)) == flat(engine.generate(single))
    seeds = [c.seed for reply in engine.generate(asked) for c in reply]
    assert seeds == [r.seed for r in single]


def test_the_same_call_gives_the_same_completions(folders: dict[str, Path], engine: TransformersEngine) -> None:
    asked = requests(Sampling(0.8, 0.9, 0, 16)) + requests(Sampling(1.0, 1.0, 5, 20))
    first = engine.generate(asked)
    assert engine.generate(asked) == first
    assert opened(folders["llama"]).generate(asked) == first
    assert opened(folders["llama"]).generate(asked[::-1]) == first[::-1]


def test_rows_that_leave_do_not_change_the_others(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(Sampling(max_new_tokens=30), count=24, n=4)
    replies = {}
    for share in (0.0, 1.0):  # never repack, repack whenever a row ends
        monkeypatch.setattr(engine_module, "_WORTH_REPACKING", share)
        replies[share] = flat(engine.generate(asked))
    assert agreement(replies[0.0], replies[1.0]) >= 0.98


def test_a_small_budget_gives_the_same_samples(folders: dict[str, Path], engine: TransformersEngine) -> None:
    asked = requests(Sampling(max_new_tokens=16), count=24, n=4)
    in_small_batches = opened(folders["llama"], max_batch_tokens=300).generate(asked)
    assert agreement(flat(engine.generate(asked)), flat(in_small_batches)) >= 0.98


@pytest.mark.parametrize("prefix", ["", "Score:"])
def test_a_choice_is_one_of_the_choices_and_ends(engine: TransformersEngine, prefix: str) -> None:
    choices = ("yes", "yes, it is", "no", " no", "")
    sampling = Sampling(temperature=3.0, max_new_tokens=20, choices=choices)
    asked = [Request([{"role": "user", "content": "well?"}], sampling, 0, n=200, reply_prefix=prefix)]
    [replies] = engine.generate(asked)
    assert {r.text for r in replies} == set(choices)
    assert {r.finish_reason for r in replies} == {"stop"}
    assert {r.token_ids[-1] for r in replies} == {2}


def test_a_greedy_choice_is_the_likeliest_first_token(folders: dict[str, Path], engine: TransformersEngine) -> None:
    chat = ref(folders["llama"]).chat()
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    digits = tuple("012345")
    asked = requests(Sampling(temperature=0, max_new_tokens=4, choices=digits), n=1)
    for request, [reply] in zip(asked, engine.generate(asked), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([chat.encode(request.messages)])).logits[0, -1]
        assert reply.text == max(digits, key=lambda d: logits[chat.encode_reply(d)[0]])


def test_replies_are_cut_at_the_limit_and_at_the_context(engine: TransformersEngine, folders: dict[str, Path]) -> None:
    chat = ref(folders["llama"]).chat()
    texts = ["a" * (50 + i) for i in range(24)]
    for limit in (1, 5, 500):
        sampling = Sampling(temperature=1.5, max_new_tokens=limit)
        asked = [Request([{"role": "user", "content": t}], sampling, 4 * i, n=4) for i, t in enumerate(texts)]
        reasons = set()
        for request, replies in zip(asked, engine.generate(asked), strict=True):
            room = min(limit, CONTEXT - len(chat.encode(request.messages)))
            for reply in replies:
                stopped = reply.token_ids[-1] in chat.stop_ids
                assert len(reply.token_ids) == room or (stopped and len(reply.token_ids) < room)
                assert reply.finish_reason == ("stop" if stopped else "length")
                assert reply.text == chat.decode(reply.token_ids[:-1] if stopped else reply.token_ids)
                assert not chat.stop_ids & set(reply.token_ids[:-1])
                reasons.add(reply.finish_reason)
        assert reasons == {"stop", "length"}


def test_a_prompt_that_fills_the_context_gets_empty_replies_and_does_not_stop_the_others(
    engine: TransformersEngine,
) -> None:
    fits, too_long = ([{"role": "user", "content": "a" * size}] for size in (9, 100))
    asked = [Request(fits, Sampling(), 3), Request(too_long, Sampling(), 0, n=2), Request(fits, Sampling(), 3)]
    ended: list[int] = []
    first, none, again = engine.generate(asked, ended.append)
    assert [(reply.text, reply.token_ids, reply.finish_reason) for reply in none] == [("", [], "length")] * 2
    assert first[0].token_ids == again[0].token_ids != []
    assert sum(ended) == 4


def test_finished_counts_every_completion(engine: TransformersEngine) -> None:
    counts: list[int] = []
    engine.generate(requests(Sampling(max_new_tokens=20), count=7, n=3), counts.append)
    assert sum(counts) == 21
    assert len(counts) > 1
    assert engine.generate([], counts.append) == []


rows_of_logits = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 3, (4, 150)).astype(np.float32)
)


@given(rows_of_logits, st.integers(0, 200), st.sampled_from([0.01, 0.3, 0.7, 0.9, 0.99, 1.0]))
@settings(deadline=None, max_examples=60)
def test_filters_against_a_walk_down_the_ranking(logits: np.ndarray, k: int, p: float) -> None:
    got = top_p_filter(top_k_filter(torch.from_numpy(logits), k), p)
    for row, filtered in zip(logits, got, strict=True):
        kept = reference_filter(row, k, p)
        assert torch.equal(filtered, torch.from_numpy(np.where(kept, row, -np.inf).astype(np.float32)))


def test_filters_keep_ties_and_never_drop_everything() -> None:
    assert top_k_filter(torch.tensor([[1.0, 2.0, 2.0, 0.0]]), 1).isfinite().tolist() == [[False, True, True, False]]
    assert top_p_filter(torch.tensor([[0.0, 0.0, -9.0]]), 0.1).isfinite().tolist() == [[True, True, False]]
    assert top_p_filter(torch.tensor([[5.0, 0.0]]), 1e-9).isfinite().tolist() == [[True, False]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 40), st.integers(1, 500))
def test_batches_keep_the_rows_under_the_budget(lengths: list[int], new_tokens: int, budget: int) -> None:
    rows = [_Row((0,) * n, i, 0, 0, False) for i, n in enumerate(sorted(lengths, reverse=True))]
    batches = list(_batches(rows, new_tokens, budget))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(b) == 1 or len(b) * (len(b[0].prompt) + new_tokens) <= budget for b in batches)


def test_another_model_replaces_the_open_one(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path, "llama", seed=1)
    asked = requests(Sampling(temperature=0, max_new_tokens=12))
    engine = opened(folders["llama"])
    first, weights = engine.generate(asked), weakref.ref(next(engine._model.parameters()))
    engine.open(ref(folders["llama"]))
    assert weights() is not None  # the same key: nothing to load
    engine.open(ref(tmp_path))
    assert weights() is None  # the first model's memory came back
    assert flat(engine.generate(asked)) == flat(opened(tmp_path).generate(asked)) != flat(first)
    weights = weakref.ref(next(engine._model.parameters()))
    engine.close()
    engine.close()
    assert weights() is None


def test_threads_are_set_for_the_call_and_given_back(folders: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    for threads in (None, 0, before + 1):
        engine = opened(folders["llama"], threads=threads)
        engine.generate(
            requests(Sampling(max_new_tokens=2), count=1, n=1), lambda rows: seen.append(torch.get_num_threads())
        )
        assert torch.get_num_threads() == before
    assert set(seen) == {1, before, before + 1}


def test_checkpoints_that_cannot_be_run_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    pickled = tmp_path / "pickled"
    save_tokenizer(pickled)
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model\.bin, a pickle.*save_pretrained"):
        opened(pickled)

    partial = tmp_path / "partial"
    save_tokenizer(partial)
    state = {name: t for name, t in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(partial, state_dict=state)
    with pytest.raises(UserError, match=r"3 weights are missing from the checkpoint \(model\.layers\.1\.mlp"):
        opened(partial)

    empty = tmp_path / "empty"
    save_tokenizer(empty)
    with pytest.raises(UserError, match="no weights"):
        opened(empty)
