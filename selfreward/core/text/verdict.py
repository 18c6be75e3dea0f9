"""The grammar of a verdict: what counts as a score, or as the better of two answers, in a judge's text.

A rubric states the form of its verdict with one ``{score}`` in it, for the paper's prompt ``Score: {score}``
(arXiv:2401.10020 figure 2), or with one ``{winner}``, for those of MT-Bench ``[[{winner}]]`` (arXiv:2306.05685
appendix A). In the judge's *new* text, and nowhere else::

    verdict = key, [space | mark], number, [mark], [denominator], [mark], end
    key     = the words before {score}; case and the amount of white space do not matter
    mark    = "*" | "_" | "`" | "<" | "[" | "("        (models decorate: **Score:** 4, Score: <4>)
    number  = digits, [".", digits]
    denominator = "/" | "out of", the rubric's highest score      (Score: 4/5)
    end     = the words after {score} where the form has some (Rating: {score}/10, [[{score}]]), else anything but
              a digit, ".digit", ",digit", "/", "%", "out of", or a range, choice or sum: "4-5", "4 or 5", "1 + 2 = 3"

    comparison = key, [space | mark], choice, [mark], end
    choice  = one of the rubric's words for the first answer, the second, and a tie (A, B, C), in that very spelling
    end     = the words after {winner} where the form has some ([[{winner}]]), else the end of the line or one of
              ``. , ; : ! ( -``, and no other choice: "A or B", "A/B"; "Winner: A close call" names nobody

The verdict is the **last** well-formed one, for a score the last whose number lies within the rubric's range; a judge
may think aloud and correct itself. No such verdict gives None, which is counted and reported and never becomes a score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# possessive or bounded throughout: reading takes time linear in the text, whatever the text
_NUMBER = r"(?P<score>\d+(?:\.\d+)?)"
_OPEN = r"[\s*_`<\[(]{0,20}"
_CLOSE = r"[*_`>\])]*"
_BLANK = r"[^\S\n]*+"
_MORE = r"[.,]?\d"
_END_OF_WORD = r"(?![^\W_])"
_OF = rf"{_BLANK}\(?{_BLANK}(?:/|out\s++of)"
_JOINED = rf"{_BLANK}(?:[-–—~+=]|to|or){_BLANK}\d"


@lru_cache(maxsize=64)
def _pattern(form: str, high: float) -> re.Pattern[str]:
    key, tail = map(_words, form.split("{score}"))
    denominator = rf"(?:{_CLOSE}+{_OF}{_BLANK}{re.escape(f'{high:g}')}(?!{_MORE}))?"
    free = rf"{_CLOSE}+(?!{_MORE}|{_OF}|{_BLANK}%|{_JOINED})"
    end = rf"{_CLOSE}\s*+{tail}(?!{_MORE})" if tail else free
    return re.compile(rf"(?<!\w)_*+{key}{_OPEN}{_NUMBER}{denominator}{end}", re.IGNORECASE)


@lru_cache(maxsize=64)
def _comparison(form: str, choices: tuple[str, ...]) -> re.Pattern[str]:
    key, tail = map(_words, form.split("{winner}"))
    named = "|".join(map(re.escape, sorted(choices, key=len, reverse=True)))
    another = rf"{_BLANK}(?:[-–—~/,&|+]|or|and|to|vs\.?){_BLANK}(?:{named}){_END_OF_WORD}"
    free = rf"{_CLOSE}+(?!{another})(?={_BLANK}(?:[.,;:!(–—-]|$))"
    end = rf"{_CLOSE}\s*+(?i:{tail})" if tail else free
    return re.compile(rf"(?<!\w)_*+(?i:{key}){_OPEN}(?P<winner>{named}){_END_OF_WORD}{end}", re.MULTILINE)


def _words(text: str) -> str:
    words = r"\s*+".join(map(re.escape, re.findall(r"\w+|[^\w\s]", text)))
    # models put the mark on either side of the colon: "**Score**: 4", "**Score:** 4"
    return re.sub("(?=[:=])", lambda _: rf"{_CLOSE}\s*+", words)


def read_score(text: str, form: str = "Score: {score}", low: float = 0, high: float = 5) -> float | None:
    """The last well-formed score within ``[low, high]``, or None (see the module's grammar).

    Args:
        text: the judge's own new text.
        form: how the rubric asks for the score, with one ``{score}`` and a word or sign before it.
        low: lowest score of the rubric, at least 0: a number has no sign.
        high: highest score of the rubric.
    """
    for match in reversed(list(_pattern(form, high).finditer(text))):
        score = float(match["score"])
        if low <= score <= high:
            return score
    return None


def read_choice(text: str, form: str = "[[{winner}]]", choices: Sequence[str] = ("A", "B", "C")) -> str | None:
    """The choice that the last well-formed comparison names, or None (see the module's grammar).

    Args:
        text: the judge's own new text.
        form: how the rubric asks for the verdict, with one ``{winner}`` and a word or sign before it.
        choices: what may stand there; case matters, for "a" is a word.
    """
    matches = list(_comparison(form, tuple(choices)).finditer(text))
    return matches[-1]["winner"] if matches else None
