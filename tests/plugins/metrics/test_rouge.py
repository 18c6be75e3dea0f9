"""ROUGE: the numbers of the ``rouge_score`` package, and the definition written out."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Prompt
from selfreward.formats.words import words
from selfreward.plugins.metrics.rouge import Rouge1, Rouge2, RougeConfig, RougeL

PROMPT = Prompt.of("Say it.", source="ift")
METRICS = [kind(RougeConfig()) for kind in (Rouge1, Rouge2, RougeL)]
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "D", "e-f", "12"]), max_size=12).map(" ".join)


# F-measures of rouge_score 0.1.2, unstemmed
@pytest.mark.parametrize(
    ("answer", "reference", "scores"),
    [
        ("The cat sat on the mat.", "A cat sat on a mat, the mat.", (0.714285714286, 0.5, 0.714285714286)),
        ("the the the the", "the cat the", (0.571428571429, 0.0, 0.571428571429)),
        (
            "Fox-like animals don't run at 3.5 km/h!",
            "foxes run; animals don't walk at 3.5 km/h",
            (0.818181818182, 0.6, 0.727272727273),
        ),
        ("police killed the gunman", "police kill the gunman", (0.75, 0.333333333333, 0.75)),
        ("one", "one two", (0.666666666667, 0.0, 0.666666666667)),
        ("nothing alike here", "some other words", (0.0, 0.0, 0.0)),
        ("", "a reference", (0.0, 0.0, 0.0)),
        ("a b c d e f g h", "h g f e d c b a", (1.0, 0.0, 0.125)),
        ("a b a b a c d", "a a b b c c d d", (0.8, 0.307692307692, 0.666666666667)),
    ],
)
def test_the_numbers_are_those_of_rouge_score(answer, reference, scores):
    assert [metric(PROMPT, answer, [reference]) for metric in METRICS] == pytest.approx(scores, abs=1e-11)


def by_hand(answer: list[str], reference: list[str]) -> float:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(answer) or j == len(reference):
            return 0
        here = 1 + longest(i + 1, j + 1) if answer[i] == reference[j] else 0
        return max(here, longest(i + 1, j), longest(i, j + 1))

    common = longest(0, 0)
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


@given(TEXTS, TEXTS.filter(str.strip))
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(answer, reference):
    split = [text.lower().replace("-", " ").split() for text in (answer, reference)]
    assert METRICS[2](PROMPT, answer, [reference]) == pytest.approx(by_hand(*split))


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_the_nearest_reference_counts_and_a_copy_is_worth_1(answer, references):
    for metric in METRICS:
        alone = [metric(PROMPT, answer, [reference]) for reference in references]
        assert metric(PROMPT, answer, references) == max((score for score in alone if score is not None), default=None)
        if metric.size(words(answer)):
            assert metric(PROMPT, answer, [*references, answer]) == 1


def test_a_reference_without_words_tells_nothing():
    assert [metric(PROMPT, "a b", ["...", "!"]) for metric in METRICS] == [None] * 3
    assert [metric(PROMPT, "a b", ["..."]) for metric in METRICS] == [None] * 3
    assert [metric(PROMPT, "a b", ["one"]) for metric in METRICS] == [0.0, None, 0.0]  # one word has no pair


def test_words_of_any_script_count():
    assert METRICS[0](PROMPT, "Straße über ÖL", ["öl über Straße"]) == 1.0
    assert METRICS[2](PROMPT, "лиса живёт у реки", ["Лиса живёт в лесу"]) == 0.5
