"""chrF of one answer, against its definition written out."""

from collections import Counter
from statistics import fmean

import pytest

from selfreward import Prompt
from selfreward.plugins.metrics.chrf import Chrf, ChrfConfig

PROMPT = Prompt.of("Say it.", source="ift")


def by_hand(answer: str, reference: str, chars: int = 6, words: int = 0, beta: float = 2) -> float:
    """Popović's formula, over the orders that both texts have n-grams of."""
    shares = []
    texts = [(["".join(text.split()) for text in (answer, reference)], chars)]
    texts += [([text.split() for text in (answer, reference)], words)]
    for (mine, theirs), orders in texts:
        for n in range(1, orders + 1):
            a, b = (Counter(tuple(text[k : k + n]) for k in range(len(text) - n + 1)) for text in (mine, theirs))
            if a and b:
                shares.append(((a & b).total() / a.total(), (a & b).total() / b.total()))
    precision, recall = map(fmean, zip(*shares, strict=True))
    factor = beta**2
    return (1 + factor) * precision * recall / (factor * precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("the cat sat on the mat", "a cat sat on a mat"),
        ("a fox", "a fox that runs and runs"),
        ("red hen", "the fox"),
        ("狐狸很快", "狐狸很慢"),
    ],
)
def test_it_is_popovics_formula(answer, reference):
    assert Chrf(ChrfConfig())(PROMPT, answer, [reference]) == pytest.approx(by_hand(answer, reference))
    short = Chrf(ChrfConfig(char_order=3, beta=1))(PROMPT, answer, [reference])
    assert short == pytest.approx(by_hand(answer, reference, chars=3, beta=1))
    plus = Chrf(ChrfConfig(word_order=2))(PROMPT, answer, [reference])
    assert plus == pytest.approx(by_hand(answer, reference, words=2))


def test_the_nearest_reference_counts():
    chrf, references = Chrf(ChrfConfig()), ["a cat sat on a mat", "the dog sat on the mat"]
    alone = [chrf(PROMPT, "the cat sat on the mat", [reference]) for reference in references]
    assert chrf(PROMPT, "the cat sat on the mat", references) == max(alone)
    assert chrf(PROMPT, "", ["a fox"]) == 0.0
    assert chrf(PROMPT, "a fox", [" "]) is None
    assert Chrf(ChrfConfig(lowercase=True))(PROMPT, "A FOX", ["a fox"]) == 1.0
