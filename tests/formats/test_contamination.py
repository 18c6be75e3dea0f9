"""Which texts also occur in an evaluation set: normalisation, word sequences, boilerplate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.formats.contamination import EvaluationTexts, contaminated, normalised, word_sequences

ALPHABET = [chr(ord("a") + k) for k in range(26)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is  it?", "what is it"),
        ("Don’t say “no”!", "dont say no"),
        ("red,green;blue", "Red, green, blue"),
        ("* a\n* b", "a - b"),
        ("Cafe\u0301", "CAFÉ"),
        ("Straße", "strasse"),
    ],
)
def test_the_same_up_to_case_space_and_punctuation(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 - 2", "3 * 2"),
        ("3-2", "3*2"),
        ("-5", "5"),
        ("1.5", "15"),
        ("C++", "C"),
        ("C#", "C"),
        ("a/b", "a b"),
        ("?!", "..."),
    ],
)
def test_what_is_not_the_same(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.text())
def test_normalising_twice_changes_nothing_that_matters(text: str) -> None:
    assert bool(normalised(text)) == bool(text.strip())
    assert normalised(f"  {text.upper()}\n") == normalised(text.upper())


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(1, 5))
def test_word_sequences_against_the_plain_definition(words: list[str], n: int) -> None:
    expected = [" ".join(words[k : k + n]) for k in range(len(words) - n + 1)]
    assert word_sequences(" ".join(words), n) == expected


def test_thirteen_words_in_a_row() -> None:
    held_out = EvaluationTexts([" ".join(ALPHABET[:20])])
    texts = [
        " ".join(ALPHABET[:13]),
        "Before: " + ", ".join(ALPHABET[7:20]).upper() + ". After",
        " ".join(ALPHABET[:12]),
        " ".join([*ALPHABET[:12], "x", *ALPHABET[12:20]]),
        " ".join(ALPHABET[:20]) + "!",
    ]
    overlap = "13 words in a row"
    assert contaminated(texts, held_out) == [overlap, overlap, None, None, "same text"]
    assert contaminated(texts, EvaluationTexts([" ".join(ALPHABET[:20])], n=0)) == [None] * 4 + ["same text"]
    assert contaminated(texts, EvaluationTexts([])) == [None] * 5
    assert len(held_out.shared(texts[0])) == 1
    assert held_out.has(texts[4])


def test_what_many_texts_share_is_boilerplate() -> None:
    template = "translate the sentence below into plain english and keep all of the names in it"
    held_out = EvaluationTexts([f"{template}: the first"])
    overlap = "13 words in a row"
    assert contaminated([f"{template}: {k}" for k in range(10)], held_out) == [overlap] * 10
    assert contaminated([f"{template}: {k}" for k in range(11)], held_out) == [None] * 11
    assert contaminated([f"{template}: {k}" for k in range(3)], held_out, common=2) == [None] * 3
    assert contaminated([f"{template}: the first"] * 11, held_out) == ["same text"] * 11
