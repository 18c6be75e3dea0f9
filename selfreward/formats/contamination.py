"""Which training texts also occur in an evaluation set.

- same text: equal after normalisation;
- overlap: n = 13 normalised words in a row stand in an evaluation text, too. Word sequences that more than 10 of the
  training texts share are boilerplate (templates, legal phrases) and do not count.

Normalised: lower case, no apostrophes, punctuation and white space as one space. Punctuation before a digit stays, so
that 3 - 2 is not 3 * 2, and so do symbols, so that C++ is not C.
Source: arXiv:2005.14165 appendix C.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

_APOSTROPHE = re.compile(r"['’‘`´]")
_PUNCTUATION = re.compile(r"[!?;\"()\[\]{}…–—_“”«»。，？！、：；]|[.,:*-](?!\s*\d)")


class EvaluationTexts:
    """The texts of evaluation sets, for asking what of another text is in them."""

    def __init__(self, texts: Iterable[str], n: int = 13) -> None:
        self.n = n
        """Words of an overlap; 0 = only whole texts are compared."""
        self.whole = {normalised(text) for text in texts} - {""}
        """The texts themselves, normalised; one without any sign is no text."""
        # hashes, not the words: long evaluation sets would fill the memory otherwise
        self._parts = {hash(words) for text in self.whole for words in word_sequences(text, n)}

    def has(self, text: str) -> bool:
        """Whether one of them is this text, up to case, white space and punctuation."""
        return normalised(text) in self.whole

    def shared(self, text: str) -> set[int]:
        """The sequences of n words of a text that stand in one of them, too, as hashes that hold in this process."""
        return self._parts.intersection(map(hash, word_sequences(normalised(text), self.n)))


def contaminated(texts: Iterable[str], evaluation: EvaluationTexts, common: int = 10) -> list[str | None]:
    """For each text ``same text``, ``13 words in a row``, or None where it is clean.

    Args:
        texts: what is to be trained on.
        evaluation: what is to be measured on.
        common: a sequence of words that more than so many of ``texts`` have is boilerplate.
    """
    found = [(evaluation.has(text), evaluation.shared(text)) for text in texts]
    spread = Counter(words for _, shared in found for words in shared)
    overlap = f"{evaluation.n} words in a row"
    return [
        "same text" if same else overlap if any(spread[words] <= common for words in shared) else None
        for same, shared in found
    ]


@lru_cache(maxsize=1)  # of one text several things are asked in a row
def normalised(text: str) -> str:
    """The words of a text in lower case, one space between them; a text without words keeps its signs."""
    folded = unicodedata.normalize("NFC", text).casefold()
    words = _PUNCTUATION.sub(" ", _APOSTROPHE.sub("", folded)).split()
    return " ".join(words or folded.split())


def word_sequences(text: str, n: int) -> list[str]:
    """Every ``n`` words in a row of a normalised text; none for n = 0 and for a text that is shorter."""
    if not (n and text):
        return []
    spaces = [found.start() for found in re.finditer(" ", text)]
    starts, ends = [0, *(space + 1 for space in spaces)], [*spaces, len(text)]
    return [text[start:end] for start, end in zip(starts, ends[n - 1 :], strict=False)]
