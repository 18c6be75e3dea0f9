"""The grammar of a verdict: what is a score or a winner, what is not, and that nothing else ever becomes one."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfreward.core.text.verdict import read_choice, read_score

FORMS = [
    ("Score: {score}", 0, 5),
    ("[[{score}]]", 1, 10),
    ("Rating: {score}", 1, 10),
    ("Rating: {score}/10", 1, 10),
    ("Final score = {score} points", 0, 5),
    ('"score": {score}', 0, 5),
    ("Score: {score}%", 0, 100),
    ("**Score:** {score} out of 5", 0, 5),
]
PIECES = [
    *"Score:Rating=[]()<>*_`/-–~+%.,45 \n",
    "Score: ",
    "Rating: ",
    "score",
    "4",
    "45",
    "4.5",
    "to",
    "out of",
    "[[",
    "٤",
    "1e5",
]
SAID = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 4", 4),
        ("Relevant, useful, clear. Score: 4", 4),
        ("score:4", 4),
        ("SCORE  :\n\n  4", 4),
        ("Score: 0", 0),
        ("Score: 5", 5),
        ("Score: 04", 4),
        ("Score: 4.5", 4.5),
        ("Score: 4.", 4),
        ("Score: 4, for it is useful", 4),
        ("Score: 4 points", 4),
        ("Score: 4 - useful", 4),
        ("Score: 4\n- 5 points were within reach", 4),
        ("Final score: 4", 4),
        ("- Score: 4", 4),
        ("(Score: 4)", 4),
        ("**Score:** 4", 4),
        ("**Score**: 4", 4),
        ("**Score: 4**", 4),
        ("### **Score:** **4**", 4),
        ("__Score:__ 4", 4),
        ("_Score: 4_", 4),
        ("`Score: 4`", 4),
        ("Score: `4`", 4),
        ("Score: <4>", 4),
        ("Score: [4]", 4),
        ("Score: 4/5", 4),
        ("Score: 4 / 5.", 4),
        ("Score: **4**/5", 4),
        ("Score: **4/5**", 4),
        ("Score: 4 out of 5", 4),
        ("Score: 4 (out of 5)", 4),
    ],
)
def test_a_verdict_is_read_however_it_is_decorated(text: str, score: float) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "Score",
        "Score:",
        "Score 4",
        "Score: four",
        "Score: x 4",
        "Score: <total points>",
        "Underscore: 4",
        "max_score: 4",
        "Score: -1",
        "Score: +4",
        "Score: .5",
        "Score: 6",
        "Score: 45",
        "Score: 5.1",
        "Score: " + "9" * 5000,
        "Score: 4.5.6",
        "Score: 4,5",
        "Score: 1,000",
        "Score: 4-5",
        "Score: 4 - 5",
        "Score: 4–5",
        "Score: 4—5",
        "Score: 4~5",
        "Score: 4 to 5",
        "Score: 4 or 5",
        "Score: [0-5]",
        "Score: **4**-5",
        "Score: 1 + 1 + 1 = 3",
        "Score: 1+1",
        "Score: 4/10",
        "Score: 4 / 10",
        "Score: 4/50",
        "Score: 4/5.5",
        "Score: 4/5/6",
        "Score: 4/",
        "Score: **4**/10",
        "Score: <4>/10",
        "Score: 4 out of 10",
        "Score: 4 (out of 10)",
        "Score: 4 out of five",
        "Score: 4%",
        "Score: 4 %",
    ],
)
def test_what_is_not_a_verdict_is_none(text: str) -> None:
    assert read_score(text) is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 2. No: Score: 4", 4),
        ("Score: 4\nScore: 2", 2),
        ("Score: 4, or rather\nScore: 4-5", 4),
        ("Score: 4\nScore: 7", 4),
        ("Score: Score: 3", 3),
        ("Score: 7. Score: 45", None),
    ],
)
def test_the_last_well_formed_verdict_counts(text: str, score: float | None) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    ("form", "high", "text", "score"),
    [
        ("[[{score}]]", 10, "My verdict: [[7]].", 7),
        ("[[{score}]]", 10, "**[[ 7 ]]**", 7),
        ("[[{score}]]", 10, "[[7/10]]", 7),
        ("[[{score}]]", 10, "[[10]]", 10),
        ("[[{score}]]", 10, "[[7", None),
        ("[[{score}]]", 10, "[7]", None),
        ("[[{score}]]", 10, "[[7-8]]", None),
        ("[[{score}]]", 10, "[[7]", None),
        ("[[{score}]]", 10, "[[11]]", None),
        ("Rating: {score}", 10, "**Rating:** 10/10", 10),
        ("Rating: {score}", 10, "Rating: 1/100", None),
        ("Rating: {score}", 10, "Score: 7", None),
        ("Rating: {score}/10", 10, "Rating: 7/10", 7),
        ("Rating: {score}/10", 10, "**Rating**: **7** / 10.", 7),
        ("Rating: {score}/10", 10, "Rating: 7", None),
        ("Rating: {score}/10", 10, "Rating: 7/100", None),
        ("Rating: {score}/10", 10, "Rating: 7/10.5", None),
        ("Final score = {score} points", 5, "Final score = 4 points", 4),
        ("Final score = {score} points", 5, "final  SCORE=4points.", 4),
        ("Final score = {score} points", 5, "**Final score** = **4** points", 4),
        ("Final score = {score} points", 5, "Final score = 4/5 points", 4),
        ("Final score = {score} points", 5, "Final score = 4", None),
        ("Final score = {score} points", 5, "Final score = 4-5 points", None),
        ("Final score = {score} points", 5, "Final score = 45 points", None),
        ('"score": {score}', 5, '{"why": "clear", "score": 4}', 4),
        ('"score": {score}', 5, '{"why": "clear", "score": 45}', None),
        ("Score: {score}%", 100, "Score: 80%", 80),
        ("Score: {score}%", 100, "Score: 80", None),
        ("Score (0-5): {score}", 5, "**Score (0-5)**: 3", 3),
        ("Score: {score}", 2.5, "Score: 2/2.5", 2),
        ("Score: {score}", 2.5, "Score: 2/2x5", None),
    ],
)
def test_the_rubric_states_the_form(form: str, high: float, text: str, score: float | None) -> None:
    assert read_score(text, form, 0, high) == score


def test_the_range_is_the_rubrics() -> None:
    assert read_score("Score: 0", low=1, high=10) is None
    assert read_score("Score: 1", low=1, high=10) == 1
    assert read_score("Score: 10", low=1, high=10) == 10


@settings(deadline=None)
@given(SAID, st.sampled_from(FORMS))
def test_any_text_gives_none_or_a_score_in_range(text: str, rubric: tuple[str, int, int]) -> None:
    form, low, high = rubric
    score = read_score(text, form, low, high)
    assert score is None or low <= score <= high


@settings(deadline=None)
@given(SAID, st.sampled_from(FORMS))
@example("Score: 45", FORMS[0])
@example("Score: 4.55", FORMS[0])
@example("Score: 1,000", FORMS[0])
@example("[[7]] [[12]]", FORMS[1])
def test_no_part_of_a_number_is_ever_read(text: str, rubric: tuple[str, int, int]) -> None:
    score = read_score(text, *rubric)
    whole = {float(number) for number in re.findall(r"\d+(?:[.,]\d+)*", text) if re.fullmatch(r"\d+(\.\d+)?", number)}
    assert score is None or score in whole


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="sSſ")))
def test_without_the_key_there_is_no_verdict(text: str) -> None:
    assert read_score(text + "core: 4") is None


@settings(deadline=None)
@given(SAID, st.sampled_from(FORMS), st.data())
@example("Score:", FORMS[0], None)
@example("Score: 4/", FORMS[0], None)
@example("[[3", FORMS[1], None)
def test_a_verdict_on_a_line_of_its_own_at_the_end_is_the_one(text: str, rubric: tuple[str, int, int], data) -> None:
    form, low, high = rubric
    score = data.draw(st.integers(low, high)) if data else high
    assert read_score(f"{text}\n{form.format(score=score)}", form, low, high) == score


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("Score: {score}", "Score" + " " * 100_000),
        ("Score: {score}", "Score:" + " " * 100_000),
        ("Score: {score}", "Score" + "*" * 100_000),
        ("Score: {score}", "Score: 4" + " " * 100_000 + "/"),
        ("Score: {score}", "Score: 4" + "*" * 100_000 + "/"),
        ("Score: {score}", "Score: 4 out" + " " * 100_000),
        ("Score: {score}", "Score: " + "4" * 100_000 + "/"),
        ("Score: {score}", "Score: 4." + "4" * 100_000 + "-5"),
        ("Score: {score}", "Score: 4 (" * 10_000),
        ("Score: {score}", "_" * 100_000),
        ("[[{score}]]", "[" * 100_000),
        ("[[{score}]]", "[[4" * 30_000),
        ("[[{score}]]", "[[4" + "]" * 100_000 + "["),
        ("**{score}**", "*" * 100_000),
        ("Final score = {score} points", "Final score = 4" + " " * 100_000),
    ],
)
def test_reading_takes_linear_time(form: str, text: str) -> None:
    start = time.process_time()
    read_score(text, form)
    assert time.process_time() - start < 2  # a hundredth of it here; quadratic work takes from ten seconds on


# ---------------------------------------------------------------------------------------------------- the better of two

WINNER = "Winner: {winner}"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("[[A]]", "A"),
        ("B is worse. [[A]]", "A"),
        ("**[[ B ]]**.", "B"),
        ("[[**C**]]", "C"),
        ("[[A]]? No, on reflection [[B]].", "B"),
        ("[[A]] and not [[D]]", "A"),
        ('"[[A]]" if A is better, "[[B]]" if B is, and "[[C]]" for a tie', "C"),
        ("[[a]]", None),
        ("[A]", None),
        ("[[A]", None),
        ("[[A", None),
        ("[[AB]]", None),
        ("[[A or B]]", None),
        ("[[A/B]]", None),
        ("[[Assistant A]]", None),
        ("[[X]]", None),
        ("A", None),
        ("", None),
    ],
)
def test_the_better_of_two_is_read_between_brackets(text: str, choice: str | None) -> None:
    assert read_choice(text) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Winner: A", "A"),
        ("winner : B.", "B"),
        ("**Winner:** **B**", "B"),
        ("Winner: _A_", "A"),
        ("Winner: A, for it is short", "A"),
        ("Winner: A - it is short", "A"),
        ("Winner: C (a tie)", "C"),
        ("Winner: B\r\nA is wrong", "B"),
        ("Winner: A close call", None),
        ("Winner: A or B", None),
        ("Winner: A and B", None),
        ("Winner: A, B", None),
        ("Winner: A/B", None),
        ("Winner: A-B", None),
        ("Winner: **A** or **B**", None),
        ("Winner: AB", None),
        ("Winner: Answer A", None),
        ("Winner: a", None),
        ("The winner is A", None),
    ],
)
def test_without_brackets_the_line_must_end_with_it(text: str, choice: str | None) -> None:
    assert read_choice(text, WINNER) == choice


def test_the_rubric_names_the_choices() -> None:
    pandas = ("1", "2", "Tie")
    said = ["Better: 1", "Better: 2!", "Better: Tie", "Better: 12", "Better: tie", "Better: A", "Better: 1 or 2"]
    assert [read_choice(text, "Better: {winner}", pandas) for text in said] == ["1", "2", "Tie", None, None, None, None]


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from([*PIECES, *"ABCab,", "Winner: ", "[[A]]"])).map("".join))
def test_any_text_gives_none_or_a_choice_that_it_holds(text: str) -> None:
    for form in ("[[{winner}]]", WINNER):
        choice = read_choice(text, form)
        assert choice is None or (choice in "ABC" and choice in text)
        assert read_choice(f"{text}\n{form.format(winner='B')}", form) == "B"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("[[{winner}]]", "[[" * 50_000),
        ("[[{winner}]]", "[[A" * 30_000),
        ("[[{winner}]]", "[[A" + "]" * 100_000 + "["),
        (WINNER, "Winner: A" + " " * 100_000),
        (WINNER, "Winner: A" + "*" * 100_000 + "x"),
        (WINNER, "Winner: A or " * 20_000),
    ],
)
def test_reading_a_choice_takes_linear_time(form: str, text: str) -> None:
    start = time.process_time()
    read_choice(text, form)
    assert time.process_time() - start < 2
