"""The micro world's tokenizer: byte-level, and every word of the world is one token.

The vocabulary is made, not trained: control tokens, the 256 bytes, and every word (with the space before it) that
occurs in a sample of the corpus. A word outside it is spelled in bytes, so any text survives a round trip. Words are
looked up whole (`ignore_merges`); there is no merge table.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from selfreward.plugins.micro.world import ADJECTIVES, NOUNS, TOPICS
from tools.micro_world.corpus import MIXTURE

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

PAD, END, BEGIN, USER, ASSISTANT = CONTROL_TOKENS = ("<|pad|>", "<|end|>", "<|bos|>", "<|user|>", "<|assistant|>")
"""Padding is not the end token: a model must learn to end."""

CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}"
    "{% if message['role'] not in ('user', 'assistant') %}"
    "{{ raise_exception('the micro model knows only the roles user and assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MAX_LENGTH = 1024
SAMPLED_DOCUMENTS_PER_KIND = 500


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer; the same every time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    entries = [*CONTROL_TOKENS, *sorted(splitter.alphabet()), *_words(splitter)]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _words(splitter: ByteLevel) -> list[str]:
    """Every piece that the splitter finds in the world's words and in a sample of the corpus, as it spells bytes."""
    rng = random.Random("tokenizer")
    texts = [f" {word}" for word in TOPICS + NOUNS + ADJECTIVES] + [f" {number}" for number in range(11)]
    for maker, _ in MIXTURE:
        texts += [text for _ in range(SAMPLED_DOCUMENTS_PER_KIND) for text, _ in maker(rng)]
    pieces: set[str] = set()
    for text in texts:
        for control_token in CONTROL_TOKENS:
            text = text.replace(control_token, "\n")
        pieces.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    return sorted(piece for piece in pieces if len(piece) > 1)
