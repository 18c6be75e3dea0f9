"""The hookspec is where a stranger learns the trade: its examples are complete and true."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import pytest

import selfreward
from selfreward import Plugin, testing
from selfreward.core.config import hookspecs, kinds

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("selfreward_")}
PLUGIN_HOOKS = kinds.HOOKS.values()
LIFECYCLE = [name for name, hook in HOOKS.items() if "event" in inspect.signature(hook).parameters]


def example(name: str) -> str:
    """The code of the docstring's ``Example::`` block."""
    doc = inspect.getdoc(HOOKS[name]) or ""
    before, mark, code = doc.partition("Example::\n")
    assert mark, f"{name} has no 'Example::' block"
    assert before.strip(), f"{name} has no contract before its example"
    return textwrap.dedent(code)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """All functions of a tree."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_kind_has_a_hook_and_every_hook_a_purpose():
    assert set(HOOKS) == {*PLUGIN_HOOKS, "selfreward_conf", *LIFECYCLE}
    assert len(LIFECYCLE) >= 4


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_a_hookspec_with_a_typed_signature(name):
    assert hasattr(HOOKS[name], "selfreward_spec"), "@hookspec is missing"
    hints = get_type_hints(HOOKS[name])
    assert {*inspect.signature(HOOKS[name]).parameters, "return"} <= set(hints)


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_implements_the_hook(name):
    tree = ast.parse(example(name))
    mine = next(function for function in functions(tree) if function.name == name)
    assert [ast.unparse(decorator) for decorator in mine.decorator_list] == ["hookimpl"]
    assert [argument.arg for argument in mine.args.args] == list(inspect.signature(HOOKS[name]).parameters)


@pytest.mark.parametrize("name", PLUGIN_HOOKS)
def test_the_example_registers_the_class_it_shows(name):
    tree = ast.parse(example(name))
    [shown] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    [call] = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Plugin"]
    positional = [ast.unparse(argument) for argument in call.args]
    inspect.signature(Plugin).bind(*positional, **{str(keyword.arg): keyword for keyword in call.keywords})
    assert positional[1].endswith(f":{shown.name}'")
    assert positional[2] == f"{shown.name}Config"


@pytest.mark.parametrize("name", PLUGIN_HOOKS)
def test_the_example_overrides_what_the_base_class_asks_for(name):
    [shown] = [node for node in ast.parse(example(name)).body if isinstance(node, ast.ClassDef)]
    base = getattr(selfreward, ast.unparse(shown.bases[0]))
    methods = {function.name: function for function in shown.body if isinstance(function, ast.FunctionDef)}
    asked = getattr(base, "__abstractmethods__", None)  # a monitor has none: it is told of what it wants to know
    assert asked <= set(methods) if asked is not None else set(methods) & set(vars(base))
    for method, function in methods.items():
        wanted = list(inspect.signature(getattr(base, method)).parameters)
        row = {"prompt": "row", "candidate": "row", "pair": "row"}  # a filter calls its row by what it is
        given = [argument.arg if argument.arg in wanted else row.get(argument.arg) for argument in function.args.args]
        assert given == wanted, f"{base.__name__}.{method}"


@pytest.mark.parametrize("name", PLUGIN_HOOKS)
def test_the_example_uses_public_names_only(name):
    tree = ast.parse(example(name))
    known = {*selfreward.__all__, "Path"} | {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id[0].isupper()}
    assert {each for each in named if not each.endswith("Config")} <= known


def build(name: str, **options: object) -> object:
    """An instance of the class that a hook's example shows."""
    space = {public: getattr(selfreward, public) for public in selfreward.__all__} | {"Path": Path}
    tree = ast.parse(example(name))
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    exec(compile(tree, name, "exec"), space)
    return space[tree.body[0].name](SimpleNamespace(**options))


@pytest.mark.parametrize(
    ("name", "options", "check"),
    [
        ("selfreward_prompt_generators", {"n": 3}, testing.check_prompt_generator),
        ("selfreward_samplers", {"max_new_tokens": 20, "model": "policy"}, testing.check_sampler),
        ("selfreward_judges", {"word": "answer"}, testing.check_judge),
        ("selfreward_selectors", {"margin": 1.0}, testing.check_selector),
    ],
)
def test_the_example_of_a_stage_keeps_its_contract(name, options, check):
    assert check(build(name, **options))


def test_the_example_of_a_metric_gives_numbers():
    metric = build("selfreward_metrics", words=4)
    [prompt, *_] = testing.prompts()
    assert metric(prompt, "It is a fox. It lives near a river.", []) == -0.5
    assert metric(prompt, " ", []) is None


def test_the_examples_of_filters_have_reasons():
    answered, judged = testing.answered_prompts(), testing.judged_prompts()
    question, refusal, longer = (build(f"selfreward_{kind}_filters") for kind in ("prompt", "candidate", "pair"))
    assert {question.reason(prompt) for prompt in testing.prompts()} == {"a question", None}
    assert {refusal.reason(candidate) for group in answered for candidate in group.candidates} == {None}
    pairs = [pair for group in judged for pair in build("selfreward_selectors", margin=0.0).select(group)]
    assert {longer.reason(pair) for pair in pairs} == {"chosen is shorter", None}


def test_the_example_of_data_gives_prompts(tmp_path):
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    data = build("selfreward_data", path=str(tmp_path / "lines.txt"))
    assert [row.prompt.text for row in data.split("ift", 0)] == ["one", "three"]
    assert [row.prompt.text for row in data.split("evaluation", 0)] == ["two"]
    assert not data.split("eft", 0)
    assert not data.problems()
