"""The shipped M0: small, loadable, able to answer."""

from pathlib import Path

import pytest

import selfreward.plugins.micro
from selfreward.plugins.micro import seeds, world

M0 = Path(selfreward.plugins.micro.__file__).parent / "m0"


@pytest.fixture(scope="module")
def loaded():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(M0), AutoTokenizer.from_pretrained(M0)


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in M0.iterdir()) <= 5 * 2**20


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
