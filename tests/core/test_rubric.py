"""Rubrics: filled in a single pass, found by name or path, and refused with every problem at once."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.errors import UserError
from selfreward.core.rubric import Rubric, find_rubric

GOOD: dict[str, Any] = {
    "name": "strict",
    "source": "a test",
    "template": "Q: {instruction}\nA: {response}",
    "low": 0,
    "high": 5,
}
SHIPPED = sorted((Path(__file__).parents[2] / "conf" / "rubric").glob("*.yaml"))


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


# -------------------------------------------------------------------------------------------------------------- look-up


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_rubric_loads_by_name_and_by_path(path: Path) -> None:
    rubric = Rubric.load(path.stem)
    assert rubric == Rubric.load(str(path))
    assert rubric.name == path.stem
    assert rubric.read(rubric.verdict.format(score=rubric.high)) == rubric.high
    assert rubric.read(rubric.render(instruction="q", response="a")) is None


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
    refusal(path)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_good_file_has_only_what_it_says(tmp_path: Path) -> None:
    extra = {"verdict": "[[{score}]]", "reply_prefix": "Topic"}
    assert Rubric.load(str(write(tmp_path, GOOD))) == Rubric(**GOOD)
    assert dataclasses.asdict(Rubric.load(str(write(tmp_path, GOOD | extra)))) == GOOD | extra


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
        ({"temperature": 1}, "unknown key 'temperature' (known: name, source, template"),
        ({1: 2}, "unknown key 1"),
    ],
)
def test_one_problem_is_one_sentence(tmp_path: Path, change: dict[Any, Any], says: str) -> None:
    [problem] = refusal(write(tmp_path, GOOD | change)).problems
    assert says in problem


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
    refusal(path)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "strict.yaml", tmp_path / "trace"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{trace}']\n")
    assert "YAML" in str(refusal(path))
    assert not trace.exists()


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubrics")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
NEARLY = st.fixed_dictionaries({}, optional={k: VALUES | st.just(v) for k, v in GOOD.items()} | {"verdict": VALUES})


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
