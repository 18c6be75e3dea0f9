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
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from selfreward import Completion, Continuations, ModelConfig, ModelRef, Request, Sampling, StageError, UserError
from selfreward.plugins.engines.transformers import causal_lm, continuous_batching, likelihood
from selfreward.plugins.engines.transformers.draw import top_k_filter, top_p_filter
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

CONTEXT = 96
CONTROLS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMALL: dict[str, Any] = {"vocab_size": 259, "max_position_embeddings": CONTEXT, "initializer_range": 0.2}
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, **SHAPE, num_key_value_heads=1, tie_word_embeddings=True),
    "mistral": MistralConfig(**SMALL, **SHAPE, num_key_value_heads=1, sliding_window=16),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=2),
    "mpt": MptConfig(vocab_size=259, max_seq_len=CONTEXT, d_model=32, n_layers=2, n_heads=2),  # takes no position_ids
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


@pytest.fixture(scope="module")
def byte_engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    """Every byte is a token, and none of them ends a reply."""
    folder = tmp_path_factory.mktemp("bytes")
    save_model(folder, "llama")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    return opened(folder)


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


@pytest.mark.parametrize("name", ["WORTH_READING", "WORTH_SORTING", "WORTH_WIDENING"])
@pytest.mark.parametrize("budget", [16384, 700])
def test_when_rows_come_and_move_does_not_change_what_they_say(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, budget: int
) -> None:
    engine = opened(folders["llama"], max_batch_tokens=budget)
    asked = requests(Sampling(max_new_tokens=30), count=24, n=4)
    replies = {}
    for share in (0.0, 1.0, 9.0):
        monkeypatch.setattr(continuous_batching, name, share)
        replies[share] = flat(engine.generate(asked))
    assert min(agreement(replies[0.0], replies[1.0]), agreement(replies[0.0], replies[9.0])) >= 0.98


def test_a_row_that_has_ended_makes_room(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps than batch after batch would take, and never more rows than the budget holds."""
    engine = opened(folders["llama"], max_batch_tokens=400)
    asked = requests(Sampling(max_new_tokens=30), count=24, n=4)
    step, held = causal_lm.CausalLm.step, []

    def counted(lm: Any, last: list[int], *rest: Any) -> torch.Tensor:
        held.append(len(last))
        return step(lm, last, *rest)

    monkeypatch.setattr(causal_lm.CausalLm, "step", counted)
    steps = {}
    for share in (1 / 3, 9.0):  # let new rows in when a third is free, or only when nothing is in work
        monkeypatch.setattr(continuous_batching, "WORTH_READING", share)
        held.clear()
        replies = engine.generate(asked)
        assert sum(held) == sum(map(len, flat(replies)))  # no row is run in vain
        assert max(held) <= 400 // 31
        steps[share] = len(held)
    assert steps[1 / 3] < 0.7 * steps[9.0]


@pytest.mark.parametrize("budget", [16384, 700])
def test_a_prefix_that_all_prompts_share_is_run_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    engine = opened(folders["llama"], max_batch_tokens=budget)
    texts = ["the rubric, to be followed: " + "x" * i for i in range(20)]
    sampling = Sampling(max_new_tokens=12)
    asked = [Request([{"role": "user", "content": text}], sampling, 9 * i, n=2) for i, text in enumerate(texts)]
    weighed = [Continuations(request.messages, ["yes", "no"]) for request in asked]
    run, tokens = causal_lm.CausalLm._run, []

    def counted(lm: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        tokens.append(ids.numel() if ids.shape[1] > 1 else 0)
        return run(lm, ids, *rest)

    monkeypatch.setattr(causal_lm.CausalLm, "_run", counted)
    counts, replies, likelihoods = [], [], []
    for worth in (1 << 40, 0):
        monkeypatch.setattr(causal_lm, "WORTH_SHARING", worth)
        tokens.clear()
        replies.append(flat(engine.generate(asked)))
        likelihoods.append([found.total for row in engine.likelihoods(weighed) for found in row])
        counts.append(sum(tokens))
    assert agreement(*replies) >= 0.95
    assert np.allclose(*likelihoods, atol=1e-4)
    assert counts[0] - counts[1] > 2 * 18 * len("the rubric, to be followed: ")


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stop_text_ends_the_reply_and_is_cut_off(folders: dict[str, Path], architecture: str) -> None:
    engine = opened(folders[architecture], max_batch_tokens=700)
    asked = requests(Sampling(max_new_tokens=30), count=20)
    chat = ref(folders[architecture]).chat()
    whole = flat(engine.generate(asked))
    texts = [chat.decode(ids[:-1] if ids[-1] in chat.stop_ids else ids) for ids in whole]
    long = [text for text in texts if len(text) > 6]
    stop = (long[0][4:6], long[1][2:3], "é")  # of a byte model: two letters, one, and one of two tokens
    stopping = [Request(r.messages, Sampling(max_new_tokens=30, stop=stop), r.seed, r.n) for r in asked]
    cut = [reply for replies in engine.generate(stopping) for reply in replies]
    hits = 0
    for reply, ids, text in zip(cut, whole, texts, strict=True):
        at = min((place for place in map(text.find, stop) if place >= 0), default=None)
        hits += at is not None
        assert reply.text == text[:at]
        assert reply.token_ids == ids[: len(reply.token_ids)]  # the tokens that spelled the stop text are kept
        if at is not None:
            assert reply.finish_reason == "stop"
            spelled, before = chat.decode(reply.token_ids), chat.decode(reply.token_ids[:-1])
            assert any(s in spelled for s in stop)
            assert not any(s in before for s in stop)  # ... and not one more
    assert 2 <= hits < len(cut)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ue000\ue001"), max_size=12), st.data())
@settings(max_examples=40)
def test_a_stop_text_is_seen_in_a_short_tail(byte_engine: TransformersEngine, text: str, data: st.DataObject) -> None:
    """The tail that each step looks at holds every stop text in whole, whatever its bytes."""
    lm = byte_engine._lm()
    ids = lm.chat.encode_reply(text)[:-1]
    said = lm.chat.decode(ids)
    assume(said and "\N{REPLACEMENT CHARACTER}" not in said)  # which half a character looks like
    start = data.draw(st.integers(0, len(said) - 1))
    stop = said[start : data.draw(st.integers(start + 1, len(said)))]
    writer = continuous_batching.Writer(lm, Sampling(stop=(stop,)), False, 1000)
    reply = continuous_batching.Reply((0, 0), 0, 0, 0, limit=1000)
    for token in ids:
        reply.tokens.append(token)
        if writer._has_ended(reply):
            break
    assert writer.completion(reply).text == said[: said.find(stop)]
    assert writer.completion(reply).finish_reason == "stop"


def test_a_regular_expression_is_refused_by_name(engine: TransformersEngine) -> None:
    with pytest.raises(UserError, match="engine=transformers cannot hold a reply to a regular expression"):
        engine.generate(requests(Sampling(regex="[0-5]")))
    with pytest.raises(UserError, match="not to both"):
        engine.generate(requests(Sampling(regex="[0-5]", choices=("1",))))


def test_memory_that_runs_out_names_the_option(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(causal_lm.CausalLm, "_run", out_of_memory)  # what a GPU would say; the CPU's memory is swapped
    for work in (
        lambda: engine.generate(requests(Sampling())),
        lambda: engine.likelihoods([Continuations([{"role": "user", "content": "a"}], ["b"])]),
    ):
        with pytest.raises(StageError, match=r"engine\.max_batch_tokens=16384 .*; try 8192"):
            work()


def reference_logprobs(model: Any, prompt: list[int], reply: list[int]) -> list[float]:
    """One row alone, in one call, without padding and without a cache."""
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + reply])).logits[0].double().log_softmax(-1)
    return [float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(reply)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [16384, 150])
def test_likelihoods_against_one_row_at_a_time(folders: dict[str, Path], architecture: str, budget: int) -> None:
    chat = ref(folders[architecture]).chat()
    model = AutoModelForCausalLM.from_pretrained(folders[architecture])
    engine = opened(folders[architecture], max_batch_tokens=budget)
    replies: list[str | list[int]] = ["", "5", "yes", "it is so, " * 2, [40, 50], [40], "5"]
    asked = [
        Continuations(r.messages, replies[: 2 + i % 6], prefix, ended)
        for i, r in enumerate(requests(Sampling()))
        for prefix in ("", "Score: ")
        for ended in (True, False)
    ]
    counts: list[int] = []
    weighed = engine.likelihoods(asked, counts.append)
    assert sum(counts) == sum(len(request.replies) for request in asked)
    assert engine.likelihoods(asked) == weighed
    for request, found in zip(asked, weighed, strict=True):
        prompt = chat.encode(request.messages, request.reply_prefix)
        for reply, weight in zip(request.replies, found, strict=True):
            if isinstance(reply, str):
                spelled = chat.encode_reply(reply, continues=bool(request.reply_prefix))
                reply = spelled if request.ended else spelled[:-1]
            assert weight.token_ids == reply
            assert np.allclose(weight.logprobs, reference_logprobs(model, prompt, reply), atol=1e-4)
            assert weight.total == sum(weight.logprobs)


def test_likelihoods_of_what_does_not_fit_have_no_tokens(engine: TransformersEngine, folders: dict[str, Path]) -> None:
    messages = [{"role": "user", "content": "a" * 20}]
    room = CONTEXT - len(ref(folders["llama"]).chat().encode(messages))
    asked = [Continuations(messages, [[40] * room, [40] * (room + 1), "b"])]
    [[fits, too_long, short]] = engine.likelihoods(asked)
    assert (len(fits.token_ids), too_long.token_ids, len(short.logprobs)) == (room, [], 2)
    [[nothing]] = engine.likelihoods([Continuations([{"role": "user", "content": "a" * 200}], ["b"])])
    assert (nothing.token_ids, nothing.logprobs) == ([], [])
    assert engine.likelihoods([]) == []


def test_choices_of_one_token_cost_one_run_of_the_prompt(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, run = [], causal_lm.CausalLm._run

    def counted(lm: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(ids.shape))
        return run(lm, ids, *rest)

    monkeypatch.setattr(causal_lm.CausalLm, "_run", counted)
    messages = [{"role": "user", "content": "how good?"}]
    [[*scores]] = engine.likelihoods([Continuations(messages, list("012345"), "Score: ", ended=False)])
    assert [len(shapes), shapes[0][0], len({score.total for score in scores})] == [1, 1, 6]


def test_logits_of_long_replies_are_made_in_parts(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Continuations(r.messages, ["word " * i for i in range(4)]) for r in requests(Sampling())]
    at_once = engine.likelihoods(asked)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 259 * 20)
    for some, others in zip(at_once, engine.likelihoods(asked), strict=True):
        assert np.allclose([x.total for x in some], [x.total for x in others], atol=1e-4)


def test_another_model_replaces_the_open_one(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path, "llama", seed=1)
    asked = requests(Sampling(temperature=0, max_new_tokens=12))
    engine = opened(folders["llama"])
    first, weights = engine.generate(asked), weakref.ref(next(engine._lm().model.parameters()))
    engine.open(ref(folders["llama"]))
    assert weights() is not None  # the same key: nothing to load
    engine.open(ref(tmp_path))
    assert weights() is None  # the first model's memory came back
    assert flat(engine.generate(asked)) == flat(opened(tmp_path).generate(asked)) != flat(first)
    weights = weakref.ref(next(engine._lm().model.parameters()))
    engine.close()
    engine.close()
    assert weights() is None


def trained(folder: Path, step: int, weights: dict[str, torch.Tensor]) -> ModelRef:
    """The model of a folder while it is trained."""
    return ModelRef("M2", str(folder), f"step {step}", ModelConfig(), weights)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_in_training_stand_in_place_of_the_folders(
    folders: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    folder, asked = folders[architecture], requests(Sampling(max_new_tokens=12))
    weighing = [Continuations(r.messages, ["yes", "it is so"]) for r in asked]
    save_model(tmp_path, architecture, seed=1)
    fresh = opened(tmp_path)
    expected = fresh.generate(asked), fresh.likelihoods(weighing)
    state = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    engine = opened(folder)
    before, model = engine.generate(asked), engine._lm().model
    engine.open(trained(folder, 1, state))
    assert engine._lm().model is model
    for tensor in state.values():
        tensor.zero_()  # training goes on; what the engine has is a copy
    assert (engine.generate(asked), engine.likelihoods(weighing)) == expected
    assert flat(expected[0]) != flat(before)
    engine.open(ref(folder))
    assert engine.generate(asked) == before
    assert (engine.open(trained(folder, 2, state)), engine._key) == (None, "step 2")
    assert engine.generate(asked) != before


def test_an_engine_may_start_on_weights_in_training(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path, "llama", seed=1)
    asked = requests(Sampling(temperature=0, max_new_tokens=12))
    state = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).state_dict()
    assert {"lm_head.weight", "model.embed_tokens.weight"} < set(state)  # one tensor
    for tied in ("lm_head.weight", "model.embed_tokens.weight", None):
        engine = TransformersEngine(TransformersConfig())
        engine.open(trained(folders["llama"], 1, {name: t for name, t in state.items() if name != tied}))
        assert engine.generate(asked) == opened(tmp_path).generate(asked)
        assert engine._lm().model.dtype == torch.float32
        engine.open(ref(folders["gpt2"]))  # of another shape
        engine.open(trained(folders["llama"], 1, state))
        assert engine.generate(asked) == opened(tmp_path).generate(asked)


def test_weights_that_do_not_fit_are_refused_by_name_and_none_is_copied(folders: dict[str, Path]) -> None:
    engine = opened(folders["llama"])
    asked = requests(Sampling(temperature=0, max_new_tokens=4))
    before = engine.generate(asked)
    state = {name: torch.zeros_like(tensor) for name, tensor in engine._lm().model.state_dict().items()}
    norm = "model.norm.weight"
    wrong = {
        rf"1 missing \({norm}\)": {name: tensor for name, tensor in state.items() if name != norm},
        r"2 missing \(model.embed_tokens.weight, ": {name: t for name, t in state.items() if "layers" in name},
        r"1 unknown \(base_model.x.lora_A\)": state | {"base_model.x.lora_A": torch.zeros(2)},
        rf"1 of another shape \({norm}\)": state | {norm: torch.zeros(33)},
        "one tensor in the checkpoint, and two in training": state | {"lm_head.weight": torch.ones(259, 32)},
    }
    for said, weights in wrong.items():
        with pytest.raises(StageError, match=said):
            engine.open(trained(folders["llama"], 1, weights))
        assert engine.generate(asked) == before
        with pytest.raises(StageError, match=said):  # asked once more, it is not taken for open
            engine.open(trained(folders["llama"], 1, weights))


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
    assert any("cannot read its config.json" in problem for problem in problems(empty))


def problems(folder: Path, **options: Any) -> list[str]:
    return TransformersEngine(TransformersConfig(**options)).problems(ref(folder))


def test_problems_are_told_without_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    assert [problems(folder) for folder in folders.values()] == [[]] * len(folders)
    for config in (T5Config(), MambaConfig()):
        config.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").touch()
        [problem] = problems(tmp_path)
        assert ("no t5 as a causal" in problem) or ("no key-value cache" in problem) or ("this one has none" in problem)
    if not torch.cuda.is_available():
        assert any("engine.device=auto" in problem for problem in problems(folders["llama"], device="cuda"))
