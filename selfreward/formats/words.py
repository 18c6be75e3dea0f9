"""The words of a text, as ROUGE sees them."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits; on ASCII text the tokens of the ``rouge_score`` package, unstemmed."""
    return _WORD.findall(text.lower())
