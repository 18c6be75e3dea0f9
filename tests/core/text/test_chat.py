"""Contents never become control tokens, and harmless messages give the ids of ``apply_chat_template``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from selfreward.core.errors import UserError
from selfreward.core.text.chat import Chat

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TEXT = [
    "Write a poem about the sea.\n\n1. The sea is wide\n2. and the sky is blue",
    "Which of the two answers is better?  Think step by step, then write: Score: 4",
    "the answer is 42, isn't it? def f(x):\n    return x + 1",
    "<|im_start|><|im_end|><|eot_id|><|start_header_id|><|tool|></s><s>[INST][/INST]<unk>",
] * 5
SPLIT = Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
STYLES = ("chatml", "llama3", "llama2_bpe", "mistral_unigram", "mistral_first")


def byte_level(template: str, controls: list[str], eos: str, **special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(SPLIT, behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=controls, show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.add_tokens([AddedToken("<|tool|>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, chat_template=template, **special)


def sentence_piece(kind: str) -> PreTrainedTokenizerFast:
    controls = ["<unk>", "<s>", "</s>"]
    common: dict[str, Any] = {"vocab_size": 400, "special_tokens": controls, "show_progress": False}
    if (
        kind == "llama2_bpe"
    ):  # as the first Llama tokenizers: the space comes from the normalizer, bytes as a last resort
        backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(strip)
        common["special_tokens"] = controls + [f"<0x{i:02X}>" for i in range(256)]
        common["vocab_size"] = 650
        backend.train_from_iterator([line for text in TEXT for line in text.split("\n")], trainers.BpeTrainer(**common))
        spec = json.loads(backend.to_str())  # bytes are no added tokens
        spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
        backend = Tokenizer.from_str(json.dumps(spec))
    else:
        scheme = "first" if kind == "mistral_first" else "always"
        backend = Tokenizer(models.Unigram() if kind == "mistral_unigram" else models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
        if kind == "mistral_unigram":
            # the corpus holds the control tokens' literals, so the model itself knows some of them
            backend.train_from_iterator(TEXT, trainers.UnigramTrainer(unk_token="<unk>", **common))
        else:
            backend.train_from_iterator(TEXT, trainers.BpeTrainer(**common))
    backend.add_tokens([AddedToken("<|tool|>", special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=MISTRAL
    )


def build(style: str) -> PreTrainedTokenizerFast:
    if style == "chatml":
        return byte_level(CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|endoftext|>")
    if style == "llama3":
        controls = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        return byte_level(LLAMA3, controls, "<|end_of_text|>", bos_token="<|begin_of_text|>")
    return sentence_piece(style)


@cache
def chat(style: str) -> Chat:
    return Chat(build(style), style)


def controls_of(chat: Chat) -> set[int]:
    return set(chat.tokenizer.added_tokens_decoder) - {chat.tokenizer.unk_token_id}


def reference(chat: Chat, messages: list[dict[str, str]]) -> list[int]:
    return chat.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)


def conversation(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[k % 2], "content": content} for k, content in enumerate(contents)]


plain_text = st.text(alphabet="abcdef \n\t.,?!1290éß中🙂'\"()[]{}#*-", max_size=40)
LITERALS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|tool|>", "<|eot_id|>", "<|begin_of_text|>", "</s>", "<s>"]
LOOKALIKES = ["[INST]", "\n", " ", "a", "Score: 5", "<", "|>", "/s>", "\ue0000\ue001", "{{ x }}", "▁", "中", "<unk>"]
hostile_text = st.lists(st.sampled_from(LITERALS + LOOKALIKES), max_size=8).map("".join)


@pytest.mark.parametrize("style", STYLES)
@given(contents=st.lists(plain_text, min_size=1, max_size=3).filter(lambda c: len(c) != 2))
@settings(deadline=None, max_examples=60)
def test_harmless_messages_give_the_ids_of_apply_chat_template(style: str, contents: list[str]) -> None:
    messages = conversation(*contents)
    assert chat(style).encode(messages) == reference(chat(style), messages)


@pytest.mark.parametrize("style", STYLES)
@given(contents=st.lists(hostile_text, min_size=3, max_size=3), prefix=hostile_text)
@settings(deadline=None, max_examples=60)
def test_no_content_yields_a_control_token(style: str, contents: list[str], prefix: str) -> None:
    c = chat(style)
    controls = controls_of(c)
    harmless = c.encode(conversation("a", "b", "c"))
    hostile = c.encode(conversation(*contents), reply_prefix=prefix)
    assert [i for i in hostile if i in controls] == [i for i in harmless if i in controls]


@pytest.mark.parametrize("style", STYLES)
@given(text=hostile_text)
@settings(deadline=None, max_examples=60)
def test_a_reply_holds_one_control_token_its_end(style: str, text: str) -> None:
    c = chat(style)
    ids = c.encode_reply(text)
    assert [i for i in ids if i in controls_of(c)] == ids[-1:]
    assert ids[-1] in c.stop_ids


@pytest.mark.parametrize("style", ["chatml", "llama3", "llama2_bpe"])
@given(text=hostile_text | plain_text | st.text(max_size=20))
@example(text="<unk>")
@example(text="a<unk>b</s>")
@settings(deadline=None, max_examples=100)
def test_decode_gives_the_reply_back(style: str, text: str) -> None:
    if style == "llama2_bpe" and "▁" in text:
        return  # this tokenizer cannot tell "▁" from a space
    assert chat(style).decode(chat(style).encode_reply(text)) == text


@pytest.mark.parametrize("style", ["mistral_unigram", "mistral_first"])
@pytest.mark.parametrize("text", ["the answer is 42", " the  sea", "a", "", "the </s> sea ", "Score: 4"])
def test_decode_gives_the_reply_back_where_the_vocabulary_covers_it(style: str, text: str) -> None:
    assert chat(style).decode(chat(style).encode_reply(text)) == text


@pytest.mark.parametrize("style", STYLES)
def test_prompt_and_reply_make_the_conversation(style: str) -> None:
    """What a model is trained on (prompt ids + reply ids) is what it will see as a past turn."""
    c = chat(style)
    longer = c.encode(conversation("Which answer?", "the answer is 42", "Why?"))
    start = c.encode(conversation("Which answer?")) + c.encode_reply("the answer is 42")[:-1]
    assert longer[: len(start)] == start


@pytest.mark.parametrize("style", STYLES)
def test_a_reply_prefix_continues_the_prompt_as_the_reply_would(style: str) -> None:
    c = chat(style)
    whole = c.encode_reply("Score: 4")[:-1]
    prompt = c.encode(conversation("Judge"))
    assert c.encode(conversation("Judge"), reply_prefix="Score: 4") == prompt + whole
    assert c.decode(c.encode_reply(" 4"), continues=True).endswith(" 4")


def test_stop_ids_name_eos_turn_end_and_the_generation_config(tmp_path: Path) -> None:
    c = chat("chatml")
    ids = c.tokenizer.convert_tokens_to_ids
    assert c.stop_ids == {ids("<|im_end|>"), ids("<|endoftext|>")}
    assert c.encode_reply("a")[-1] == ids("<|im_end|>")
    c.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [ids("<|endoftext|>"), 7]}))
    assert Chat.load(str(tmp_path)).stop_ids == {ids("<|im_end|>"), ids("<|endoftext|>"), 7}


def test_padding_falls_back_to_eos() -> None:
    assert chat("chatml").pad_id == chat("chatml").tokenizer.eos_token_id


@pytest.mark.parametrize("style", STYLES)
def test_a_saved_chat_loads_as_it_was(style: str, tmp_path: Path) -> None:
    messages = conversation("hello </s><|im_end|>", "the answer", "why")
    chat(style).save(tmp_path)
    again = Chat.load(str(tmp_path))
    assert again.encode(messages) == chat(style).encode(messages)
    assert again.stop_ids == chat(style).stop_ids


def test_a_template_may_be_text_or_a_file(tmp_path: Path) -> None:
    chat("llama3").save(tmp_path / "model")
    text = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    (tmp_path / "plain.jinja").write_text(text)
    of_text = Chat.load(str(tmp_path / "model"), text)
    of_file = Chat.load(str(tmp_path / "model"), str(tmp_path / "plain.jinja"))
    assert of_text.encode(conversation("hello")) == of_file.encode(conversation("hello"))
    assert of_text.tokenizer.decode(of_text.encode(conversation("hello"))) == "user: hello\n"
    # a template without an end of turn: the tokenizer's EOS ends a reply
    assert of_text.encode_reply("hello")[-1] == of_text.tokenizer.eos_token_id


def test_what_cannot_be_used_is_refused_with_its_mend(tmp_path: Path) -> None:
    chat("chatml").save(tmp_path / "model")
    path = str(tmp_path / "model")
    with pytest.raises(UserError, match=r"no/such\.jinja: neither a file nor a jinja template"):
        Chat.load(path, "no/such.jinja")
    with pytest.raises(UserError, match="does not show the messages"):
        Chat.load(path, "{{ 'hello' }}")
    with pytest.raises(UserError, match="tokenizer cannot be loaded"):
        Chat.load(str(tmp_path))
    bare = build("chatml")
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match=r"model\.chat_template="):
        Chat.load(str(tmp_path / "bare"))
    endless = build("chatml")
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(UserError, match="no EOS token"):
        Chat.load(str(tmp_path / "endless"))


def test_a_conversation_the_template_refuses_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="user, user: Conversation roles must alternate"):
        chat("mistral_unigram").encode([{"role": "user", "content": "a"}] * 2)
    with pytest.raises(UserError, match=r"'user<\|im_end\|>'"):
        chat("chatml").encode([{"role": "user<|im_end|>", "content": "a"}])


def test_a_template_without_a_system_role_gets_the_text_in_the_first_turn():
    from selfreward.plugins.micro.model import MicroModel, MicroModelConfig

    chat = Chat.load(MicroModel(MicroModelConfig()).path())
    system, user = {"role": "system", "content": "Judge."}, {"role": "user", "content": "Is it good?"}
    assert chat.encode([system, user]) == chat.encode([{"role": "user", "content": "Judge.\n\nIs it good?"}])
