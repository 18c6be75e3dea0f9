"""Rubrics: filled in a single pass, found by name or path, and refused with every problem at once."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.errors import UserError
from selfreward.core.text.rubric import Rubric, find_rubric

GOOD: dict[str, Any] = {
    "name": "strict",
    "source": "a test",
    "template": "Q: {instruction}\nA: {response}",
    "low": 0,
    "high": 5,
}
PAIR: dict[str, Any] = {
    "name": "duel",
    "source": "a test",
    "template": "Q: {instruction}\nA: {response_a}\nB: {response_b}",
    "verdict": "[[{winner}]]",
}
DIALOGUE = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHIPPED = sorted((Path(__file__).parents[3] / "conf" / "rubric").glob("*.yaml"))


def write(folder: Path, values: object, name: str = "strict") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def refusal(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        Rubric.load(str(path))
    assert all(str(path) in problem for problem in caught.value.problems)
    return caught.value


# ------------------------------------------------------------------------------------------------------------ rendering


def test_texts_are_put_in_as_they_are() -> None:
    rubric = Rubric(**GOOD)
    rendered = rubric.render(
        instruction="{response} {instruction} {0} {} {{x}} %s \\1 \\g<0> $a", response="{instruction"
    )
    assert rendered == "Q: {response} {instruction} {0} {} {{x}} %s \\1 \\g<0> $a\nA: {instruction"


def test_other_braces_of_a_template_stay() -> None:
    template = 'Reply in JSON: {"score": 3} {} {0 1}. {{instruction}} {response} {instruction}'
    rubric = Rubric(**GOOD | {"template": template})
    assert rubric.render(instruction="i", response="r") == 'Reply in JSON: {"score": 3} {} {0 1}. {i} r i'


@settings(deadline=None)
@given(st.text(), st.text())
def test_rendering_is_a_single_pass(instruction: str, response: str) -> None:
    rubric = Rubric(**GOOD)
    assert rubric.render(instruction=instruction, response=response) == f"Q: {instruction}\nA: {response}"


def test_a_reference_is_put_in_where_the_template_has_one() -> None:
    rubric = Rubric(**GOOD | {"template": "{instruction}|{reference}|{response}"})
    assert rubric.render(instruction="a", response="{reference}", reference="{response}") == "a|{response}|{reference}"


def test_reading_uses_its_own_form_and_range() -> None:
    rubric = Rubric(**GOOD | {"low": 1, "high": 10, "verdict": "[[{score}]]"})
    assert (rubric.read("[[10]]"), rubric.read("[[0]]"), rubric.read("Score: 4")) == (10, None, None)


# ------------------------------------------------------------------------------------------------ what a judge is asked


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]


def test_a_rubric_asks_in_one_user_turn_behind_its_system_turn() -> None:
    asked = {"role": "user", "content": "Q: Why?\nA: {instruction}"}
    assert Rubric(**GOOD).messages(turns("Why?", "{instruction}")) == [asked]
    strict = Rubric(**GOOD, system="Be strict.")
    assert strict.messages(turns("Why?", "{instruction}")) == [{"role": "system", "content": "Be strict."}, asked]


def test_a_longer_conversation_is_written_out() -> None:
    system = {"role": "system", "content": "Answer briefly."}
    talk = [system, *turns("Name a river.", "The Nile.", "Where does it end?", "In the sea.")]
    [asked] = Rubric(**GOOD).messages(talk)
    assert asked["content"] == (
        "Q: System: Answer briefly.\n\nUser: Name a river.\n\nAssistant: The Nile.\n\nUser: Where does it end?\n"
        "A: In the sea."
    )


def test_turns_stand_where_the_template_wants_them() -> None:
    rubric = Rubric(**GOOD | {"template": "{instruction_1}|{response_1}|{instruction_2}|{response_2}|{reference_2}"})
    assert (rubric.turns, rubric.needs_reference) == (2, True)
    [asked] = rubric.messages(turns("q1", "{response_2}", "q2", "a2"), references=["r1", "r2"])
    assert asked["content"] == "q1|{response_2}|q2|a2|r2"
    system = {"role": "system", "content": "s"}
    [asked] = rubric.messages([system, *turns("q1", "a1", "q2", "a2")], references=["r1", "r2"])
    assert asked["content"].startswith("System: s\n\nUser: q1|a1|")


def test_a_comparison_shows_both_answers_and_their_own_turns_before() -> None:
    rubric = Rubric(**PAIR)
    assert (rubric.compares, rubric.low, rubric.high) == (True, 0, 1)
    assert rubric.messages(turns("q", "{response_b}"), turns("q", "y"))[0]["content"] == "Q: q\nA: {response_b}\nB: y"
    by_turn = "{instruction_1} {response_a_1} {response_b_1} {instruction_2} {response_a_2} {response_b_2}"
    [asked] = Rubric(**PAIR | {"template": by_turn}).messages(turns("q", "a", "p", "b"), turns("q", "x", "p", "y"))
    assert asked["content"] == "q a x p b y"


def test_the_verdict_of_a_comparison_is_what_the_first_answer_gets() -> None:
    assert [Rubric(**PAIR).read(f"[[{said}]]") for said in "ABCD"] == [1, 0, 0.5, None]
    two = Rubric(**PAIR | {"verdict": "Winner: {winner}", "choices": ("1", "2")})
    assert [two.read(f"Winner: {said}") for said in ("1", "2", "C")] == [1, 0, None]


@pytest.mark.parametrize(
    ("text", "whole", "cut"),
    [
        ("Score: 1", 1, None),  # of "Score: 10", perhaps
        ("Score: 1/", None, None),
        ("Score: 4. Because 2", 4, None),
        ("Score: 4. Because the", 4, 4),
        ("", None, None),
        ("Winner: A", 1, None),  # of "Winner: A or B", perhaps
        ("Winner: A\nFor it", 1, 1),
        ("Winner: B. Or Winner: A", 1, 0),
    ],
)
def test_a_verdict_that_the_token_limit_may_have_cut_is_none(text, whole, cut):
    score = Rubric("score", "", "{instruction} {response}", 0, 10)
    rubric = Rubric(**PAIR | {"verdict": "Winner: {winner}"}) if "Winner" in text else score
    assert (rubric.read(text), rubric.read(text, cut_off=True)) == (whole, cut)


REFERENCE = "{instruction} {response} {reference}"
TWO_TURNS = "{instruction_1} {response_1} {instruction_2} {response_2}"


@pytest.mark.parametrize(
    ("rubric", "dialogues", "references", "says"),
    [
        (PAIR, 1, [], "rubric duel compares two answers"),
        (GOOD, 2, [], "rubric strict scores one answer"),
        (GOOD | {"template": REFERENCE}, 1, [], "wants a reference answer, and this prompt has none"),
        (GOOD | {"template": TWO_TURNS}, 1, [], "is for conversations of 2 user turns, each with its answer"),
        (GOOD | {"template": f"{TWO_TURNS} {{reference_1}}"}, 1, ["r"], "is for conversations of 2 user turns"),
    ],
)
def test_what_a_rubric_cannot_be_asked_about_is_said(
    rubric: dict[str, Any], dialogues: int, references: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        Rubric(**rubric).messages(*[DIALOGUE] * dialogues, references=references)


def test_two_turns_want_two_references() -> None:
    rubric = Rubric(**GOOD | {"template": f"{TWO_TURNS} {{reference_1}}"})
    assert "each of the 2 user turns" in rubric.misfit(turns("q", "a", "p", "b"), references=["r"])
    assert rubric.misfit(turns("q", "a", "p", "b"), references=["r", "s"]) == ""


@settings(deadline=None)
@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_is_looked_at_twice(question: str, first: str, second: str, reference: str) -> None:
    rubric = Rubric(**PAIR | {"template": "{reference}|{instruction}|{response_a}|{response_b}"})
    [asked] = rubric.messages(turns(question, first), turns(question, second), [reference])
    assert asked["content"] == f"{reference}|{question}|{first}|{second}"


# -------------------------------------------------------------------------------------------------------------- look-up


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_rubric_loads_by_name_and_by_path(path: Path) -> None:
    rubric = Rubric.load(path.stem)
    assert rubric == Rubric.load(str(path))
    assert rubric.name == path.stem
    assert Rubric.file(path.stem) == path
    best = rubric.verdict.format(score=rubric.high, winner=rubric.choices[0])
    assert rubric.read(best) == rubric.high
    [asked] = rubric.messages(*[DIALOGUE] * (1 + rubric.compares), references=["r"])
    assert rubric.read(asked["content"]) is None, "the prompt's own form is no verdict"
    assert not re.search(r"\{\w+\}", asked["content"])


def test_the_first_folder_that_has_the_name_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(second, GOOD)
    assert find_rubric("strict", (first, second)) == second / "strict.yaml"
    write(first, GOOD)
    assert find_rubric("strict", (first, second)) == first / "strict.yaml"


def test_an_unknown_name_is_told_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "mild")
    with pytest.raises(UserError, match=r"judge\.rubric=strikt: no such rubric; there are mild, strict"):
        Rubric.load("strikt", (tmp_path,))
    with pytest.raises(UserError, match="there are none"):
        Rubric.load("strict", (tmp_path / "elsewhere",))


@pytest.mark.parametrize("name", ["missing.yaml", "missing.yml", "folder.yaml", "nul\0.yaml"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="no such file"):
        Rubric.load(str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_the_users_to_mend(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.chmod(0)
    assert str(path) in str(refusal(path))


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_good_file_has_only_what_it_says(tmp_path: Path) -> None:
    extra = {"verdict": "[[{score}]]", "reply_prefix": "Topic"}
    assert Rubric.load(str(write(tmp_path, GOOD))) == Rubric(**GOOD)
    unsaid = {"system": "", "choices": ("A", "B", "C")}
    assert dataclasses.asdict(Rubric.load(str(write(tmp_path, GOOD | extra)))) == GOOD | unsaid | extra


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"low": 5}, "0 <= low < high, got 5 and 5"),
        ({"low": 6}, "0 <= low < high"),
        ({"low": -1}, "0 <= low < high, got -1"),
        ({"high": float("inf")}, "got 0 and inf"),
        ({"high": float("nan")}, "got 0 and nan"),
        ({"low": float("nan")}, "got nan"),
        ({"low": "0"}, "'low' must be a number"),
        ({"high": True}, "'high' must be a number"),
        ({"high": None}, "'high' must be a number"),
        ({"name": 3}, "'name' must be text"),
        ({"template": ["{instruction}", "{response}"]}, "'template' must be text"),
        ({"reply_prefix": None}, "'reply_prefix' must be text"),
        ({"verdict": None}, "'verdict' must be text"),
        ({"verdict": "Score:"}, "verdict must hold {score} once"),
        ({"verdict": "Score: {score} or {score}"}, "verdict must hold {score} once"),
        ({"verdict": " {score}/5"}, "with a word or sign before it"),
        ({"template": "{instruction}"}, "template must hold {response}"),
        ({"template": "{response}"}, "template must hold {instruction}"),
        ({"template": "{instruction} {response} {answer} {answer}"}, "template holds {answer}"),
        ({"template": "{instruction} {response} {response_a}"}, "template holds {response_a}"),
        ({"template": "{instruction_0} {instruction} {response}"}, "template holds {instruction_0}"),
        ({"system": "{response}"}, "system holds {response}"),
        ({"choices": ["A", "B"]}, "'choices' is for rubrics with a {winner}"),
        ({"temperature": 1}, "unknown key 'temperature' (known: name, source, system, template"),
        ({1: 2}, "unknown key 1"),
    ],
)
def test_one_problem_is_one_sentence(tmp_path: Path, change: dict[Any, Any], says: str) -> None:
    [problem] = refusal(write(tmp_path, GOOD | change)).problems
    assert says in problem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": "{instruction} {response_a}"}, "template must hold {response_b}"),
        ({"template": "{instruction} {response_a} {response_b} {response}"}, "template holds {response}"),
        ({"verdict": "[[{winner}]] {winner}"}, "verdict must hold {winner} once"),
        ({"high": 1}, "'high' is for rubrics with a {score}"),
        ({"choices": ["A"]}, "'choices' must be two or three different words"),
        ({"choices": ["A", "A"]}, "two or three different words"),
        ({"choices": ["A", "B", "no one"]}, "two or three different words"),
        ({"choices": [1, 2]}, "two or three different words"),
        ({"choices": "AB"}, "two or three different words"),
    ],
)
def test_one_problem_of_a_comparison_is_one_sentence(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    [problem] = refusal(write(tmp_path, PAIR | change)).problems
    assert says in problem


def test_a_comparison_has_no_range_of_its_own_and_says_its_words(tmp_path: Path) -> None:
    assert Rubric.load(str(write(tmp_path, PAIR))) == Rubric(**PAIR)
    named = Rubric.load(str(write(tmp_path, PAIR | {"choices": ["1", "2", "Tie"]})))
    assert named.choices == ("1", "2", "Tie")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    [problem] = refusal(write(tmp_path, {k: v for k, v in GOOD.items() if k != key})).problems
    assert f"key '{key}' is missing" in problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    shape = refusal(write(tmp_path, {"nmae": "x", "source": 1, "template": "t", "low": "0", "verdict": 2})).problems
    assert [problem.split(": ", 1)[1].split(" (")[0] for problem in shape] == [
        "unknown key 'nmae'",
        "key 'name' is missing",
        "key 'high' is missing",
        "'source' must be text",
        "'verdict' must be text",
        "'low' must be a number",
    ]
    mixed = refusal(write(tmp_path, GOOD | {"template": "{instruction_1} {response_1} {response}"})).problems
    assert [problem.split(": ", 1)[1] for problem in mixed] == [
        "template holds {response} beside {instruction_1}: number all placeholders by turn, or none"
    ]
    compares = refusal(write(tmp_path, GOOD | {"verdict": "[[{winner}]]"})).problems
    assert [problem.rsplit(": ", 1)[1] for problem in compares] == [
        f"'{key}' is for rubrics with a {{score}}" for key in ("low", "high")
    ]
    meaning = refusal(write(tmp_path, GOOD | {"template": "{x}{y}", "low": 9, "verdict": "?"}))
    assert len(meaning.problems) == 6
    assert str(meaning).startswith("6 problems:\n  1. rubric ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "additive",
        "- name",
        "name: [",
        "name: a: b",
        "\tname: x",
        "name: x\x00",
        "? [a]\n: b",
        "[" * 5000,
        "low: 2024-13-45",
        "low: !!int ''",
        "low: !!bool x",
        "low: !!timestamp x",
        "low: !!python/object/apply:os.getcwd []",
        "low: *nothing",
        "high: " + "9" * 5000,
    ],
)
def test_a_file_that_is_no_rubric_is_the_users_to_mend(tmp_path: Path, text: str) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text(text, encoding="utf-8")
    assert str(path) in str(refusal(path))


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "strict.yaml", tmp_path / "trace"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{trace}']\n")
    assert "YAML" in str(refusal(path))
    assert not trace.exists()


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubrics")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
NEARLY = st.fixed_dictionaries(
    {},
    optional={k: VALUES | st.just(v) for k, v in GOOD.items()}
    | dict.fromkeys(["verdict", "choices", "system"], VALUES),
)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | NEARLY.map(yaml.safe_dump).map(str.encode))
def test_any_file_is_a_rubric_or_refused(anywhere: Path, content: bytes) -> None:
    path = anywhere / "any.yaml"
    path.write_bytes(content)
    try:
        rubric = Rubric.load(str(path))
    except UserError:
        return
    score = rubric.read("Score: 3")
    assert score is None or rubric.low <= score <= rubric.high
