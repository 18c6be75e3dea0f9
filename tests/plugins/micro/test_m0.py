"""The shipped M0: small, loadable, able to answer, and what its log says it is; and how it is made."""

import hashlib
import re
from pathlib import Path

import pytest

import selfreward.plugins.micro
from selfreward.plugins.micro import seeds, tokenizer, world
from selfreward.plugins.micro.pretrain import (
    PretrainConfig,
    Row,
    bucket_by_length,
    learning_rate,
    pretrain_in_processes,
)

M0 = Path(selfreward.plugins.micro.__file__).parent / "m0"


@pytest.fixture(scope="module")
def loaded():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(M0), AutoTokenizer.from_pretrained(M0)


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in M0.iterdir()) <= 5 * 2**20


def test_the_weights_are_those_of_the_log():
    logged = re.search(r"^sha256=(\w+) file=model\.safetensors$", (M0 / "pretrain.log").read_text(), re.MULTILINE)
    assert logged
    assert logged[1] == hashlib.sha256((M0 / "model.safetensors").read_bytes()).hexdigest()


def test_the_tokenizer_is_the_one_that_the_code_builds(loaded):
    built = tokenizer.build_tokenizer()
    assert loaded[1].get_vocab() == built.get_vocab()
    assert loaded[1].chat_template == built.chat_template


def test_m0_is_float32_with_tied_embeddings(loaded):
    import torch

    model, words = loaded
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.generation_config.eos_token_id == words.eos_token_id
    assert model.config.pad_token_id == words.pad_token_id


def test_m0_answers_in_chat_layout_and_ends(loaded):
    model, words = loaded
    for instruction in seeds.evaluation(5):
        chat = [{"role": "user", "content": instruction}]
        asked = words.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        reply = model.generate(**asked, max_new_tokens=60, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert reply[-1] == words.eos_token_id
        known = {
            word.lower() for word in world.spoken_words(" ".join(world.ONE_NOUN_SENTENCES + world.TWO_NOUN_SENTENCES))
        }
        assert known & set(world.spoken_words(words.decode(reply, skip_special_tokens=True)))


def test_buckets_keep_every_row_within_the_budget():
    rows = [Row([0] * length, [True] * length) for length in (3, 9, 1, 7, 7, 2, 8, 30)]
    buckets = bucket_by_length(rows, tokens=20)
    assert sorted(len(row.ids) for bucket in buckets for row in bucket) == [1, 2, 3, 7, 7, 8, 9, 30]
    assert all(len(bucket) == 1 or len(bucket) * max(len(row.ids) for row in bucket) <= 20 for bucket in buckets)


def test_the_learning_rate_warms_up_stays_and_falls():
    config = PretrainConfig(steps=1000, warmup_steps=50, lr=1.0, flat_share=0.3, lr_floor=0.02)
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 200) == 1.0
    assert learning_rate(config, 650) == pytest.approx(0.5)
    assert learning_rate(config, 999) == pytest.approx(0.02)


def test_pretraining_twice_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        pretrain_in_processes(PretrainConfig(steps=4), tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name
