"""The grammar of a verdict: what counts as a score in a judge's text.

A rubric states the form of its verdict with one ``{score}`` in it, for the paper's prompt ``Score: {score}``
(arXiv:2401.10020 figure 2). In the judge's *new* text, and nowhere else::

    verdict = key, [space | mark], number, [denominator], [mark], end
    key     = the words before {score}; case and the amount of white space do not matter
    mark    = "*" | "_" | "`" | "<" | "[" | "("        (models decorate: **Score:** 4, Score: <4>)
    number  = digits, [".", digits]
    denominator = "/" | "out of", the rubric's highest score      (Score: 4/5)
    end     = anything but a digit, ".digit", "/", "%", or a range such as "4-5"

The verdict is the **last** well-formed one whose number lies within the rubric's range; a judge may think aloud and
correct itself. No such verdict gives None, which is counted and reported and never becomes a score.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBER = r"(?P<score>\d+(?:\.\d+)?)"
_OPEN = r"[\s*_`<\[(]*"
_CLOSE = r"[*_`>\])]*"


@lru_cache(maxsize=64)
def _pattern(form: str, high: float) -> re.Pattern[str]:
    before, after = form.split("{score}")
    words = [r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", part))) for part in re.split(r"\s+", before.strip())]
    # models put the mark on either side of the colon: "**Score**: 4", "**Score:** 4"
    key = r"\s+".join(words).replace(":", rf"{_CLOSE}\s*:")
    denominator = rf"(?:\s*(?:/|out\s+of)\s*{high:g}(?![\d.]*\d))?"
    end = r"(?!\d|\.\d|\s*[/%]|\s*(?:-|–|—|to\b)\s*\d|\s*out\s+of\b)"
    tail = r"\s*".join(map(re.escape, after.strip().split()))
    return re.compile(rf"(?<!\w){key}{_OPEN}{_NUMBER}{denominator}{end}{_CLOSE}\s*{tail}", re.IGNORECASE)


def read_score(text: str, form: str = "Score: {score}", low: float = 0, high: float = 5) -> float | None:
    """The last well-formed score within ``[low, high]``, or None (see the module's grammar).

    Args:
        text: the judge's own new text.
        form: how the rubric asks for the score, with one ``{score}``.
        low: lowest score of the rubric.
        high: highest score of the rubric.
    """
    for match in reversed(list(_pattern(form, high).finditer(text))):
        score = float(match["score"])
        if low <= score <= high:
            return score
    return None
