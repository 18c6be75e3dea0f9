"""BLEU of one answer, against its definition written out, and what is refused."""

import math
from collections import Counter

import pytest

from selfreward import Prompt
from selfreward.core.contracts.options import range_problems
from selfreward.plugins.metrics.bleu import TOKENIZERS, Bleu, BleuConfig

PROMPT = Prompt.of("Say it.", source="ift")


def by_hand(answer: str, references: list[str], orders: int = 4) -> float:
    """Papineni's formula; the k-th zero precision counts as 1 / (2^k · n-grams), n at most the answer's length."""
    mine, theirs = answer.split(), [reference.split() for reference in references]
    logs, zeros = [], 0
    for n in range(1, min(orders, len(mine)) + 1):
        counts, *others = [
            Counter(tuple(text[k : k + n]) for k in range(len(text) - n + 1)) for text in (mine, *theirs)
        ]
        hits = sum(min(count, max(other[gram] for other in others)) for gram, count in counts.items())
        zeros += not hits
        logs.append(math.log(hits / counts.total() if hits else 1 / (2**zeros * counts.total())))
    nearest = min((abs(len(text) - len(mine)), len(text)) for text in theirs)[1]
    return min(1.0, math.exp(1 - nearest / len(mine))) * math.exp(sum(logs) / len(logs))


@pytest.mark.parametrize(
    ("answer", "references"),
    [
        ("the cat sat on the mat", ["the cat sat on the mat"]),
        ("the cat sat on the mat", ["a cat sat on a mat today", "the cat sat on mats"]),
        ("the the the the", ["the cat is on the mat"]),
        ("a b c d e", ["a b c d e f g h i j"]),
        ("a b c x e f", ["a b c d e f"]),
        ("a b", ["a b c"]),
    ],
)
def test_it_is_papinenis_formula_smoothed(answer, references):
    assert Bleu(BleuConfig())(PROMPT, answer, references) == pytest.approx(by_hand(answer, references))
    two = Bleu(BleuConfig(max_order=2))(PROMPT, answer, references)
    assert two == pytest.approx(by_hand(answer, references, orders=2))


def test_what_has_nothing_in_common_is_worth_nothing_and_blank_references_tell_nothing():
    bleu = Bleu(BleuConfig())
    assert bleu(PROMPT, "", ["a fox"]) == bleu(PROMPT, "red hen", ["a fox"]) == 0.0
    assert bleu(PROMPT, "a fox", ["a fox", " "]) == 1.0
    assert bleu(PROMPT, "a fox", [" ", ""]) is None


def test_options_reach_the_library():
    assert Bleu(BleuConfig())(PROMPT, "A FOX", ["a fox"]) == 0.0
    assert Bleu(BleuConfig(lowercase=True))(PROMPT, "A FOX", ["a fox"]) == 1.0
    spaced = [Bleu(BleuConfig(tokenize=name))(PROMPT, "狐狸很快", ["狐狸很慢"]) for name in ("13a", "zh", "char")]
    assert spaced[0] == 0.0 < spaced[1] == spaced[2] < 1


def test_a_tokenizer_that_would_be_fetched_is_refused():
    assert [BleuConfig(tokenize=name).problems() for name in TOKENIZERS] == [[]] * len(TOKENIZERS)
    assert BleuConfig(tokenize="flores200").problems() == ["tokenize=flores200: there are 13a, char, intl, zh, none"]
    assert list(range_problems(BleuConfig(max_order=0), "x"))
