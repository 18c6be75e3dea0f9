"""The tokenizer: one token per word of the world, and any text survives."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.plugins.micro import seeds, world
from tools.micro_world import corpus, tokenizer

BUILT = tokenizer.build_tokenizer()


def ids_of(text):
    return BUILT.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("word", world.TOPICS + world.NOUNS + world.ADJECTIVES)
def test_every_word_of_the_world_is_one_token(word):
    assert len(ids_of(f" {word}")) == 1


def test_no_text_of_the_world_is_spelled_in_bytes():
    exchanges = [*seeds.ift(0, 200), *seeds.eft(0, 50), *seeds.tasks(0, 50)]
    texts = [text for exchange in exchanges for text in (exchange.prompt, exchange.reply)]
    spelled = {
        token
        for text in texts
        for token in BUILT.tokenize(text)
        if len(token) == 1 and token.isascii() and token.isalnum()
    }
    assert spelled <= {"I"}


@given(text=st.text(max_size=60))
def test_any_text_survives_a_round_trip(text):
    encoded = BUILT.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert BUILT.decode(encoded, clean_up_tokenization_spaces=False) == text


def test_padding_is_not_the_end():
    assert BUILT.pad_token_id != BUILT.eos_token_id
    assert BUILT.eos_token == "<|end|>"


def test_pieces_of_a_document_encode_like_the_whole():
    rng = random.Random(0)
    for maker, _ in corpus.MIXTURE:
        for _ in range(30):
            texts = [text for text, _ in maker(rng)]
            assert [number for text in texts for number in ids_of(text)] == ids_of("".join(texts))


def test_the_chat_template_is_the_layout_of_the_corpus():
    messages = [
        {"role": "user", "content": "Describe the fox using cup."},
        {"role": "assistant", "content": "The fox."},
    ]
    text = BUILT.apply_chat_template(messages, tokenize=False)
    document = corpus.chat("Describe the fox using cup.", "The fox.")
    assert text == "<|bos|>" + "".join(text for text, _ in document) + "<|end|>"
    asked = BUILT.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|bos|><|user|>Describe the fox using cup.<|end|><|assistant|>"


def test_an_unknown_role_is_refused():
    with pytest.raises(Exception, match="only the roles user and assistant"):
        BUILT.apply_chat_template([{"role": "system", "content": "Hello."}], tokenize=False)
