"""Words are the tokens of ROUGE, written again as its package documents them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from selfreward.formats.words import words


@given(st.text(st.characters(max_codepoint=127)))
def test_on_ascii_words_are_the_tokens_of_rouge_score(text):
    # lower case, everything but a-z and 0-9 separates, no stemming
    assert words(text) == [token for token in re.split(r"\s+", re.sub(r"[^a-z0-9]+", " ", text.lower())) if token]


def test_words_of_other_scripts_are_words():
    assert words("Über Füchse, ÉTÉ, 狐狸!") == ["über", "füchse", "été", "狐狸"]
