"""The README tells the truth: its commands compose, its loop is the loop, its example plugin keeps the contract."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from selfreward.core.cli import VERBS, run_config
from selfreward.testing import check_judge

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m selfreward ")
]
ONE_ROUND = {"recipe=rlhf", "experiment=policy_gradients"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_valid_one(command):
    words = [word for word in shlex.split(command)[3:] if not word.startswith("-")]
    verb = words.pop(0) if words and words[0] in VERBS else ""
    if (verb and verb != "evaluate") or "job" in words or "judge=keyword" in words:
        return
    # a sweep's values one by one
    jobs = [[]]
    for word in words:
        key, _, value = word.partition("=")
        value = str(ROOT / "selfreward/plugins/micro/m0") if key == "model.path" else value  # it has to exist
        values = value.split(",") if "-m" in shlex.split(command) and "[" not in value else [value]
        jobs = [[*job, f"{key}={v}"] for job in jobs for v in values]
    for job in jobs:
        given = ["recipe=none", "data=none", "iterations=0"] if verb else []
        assert run_config([*given, *job]).options.iterations == (0 if verb else 1 if ONE_ROUND & {*job} else 2)


def test_there_are_commands():
    assert len(COMMANDS) > 10


def test_the_loop_is_the_one_in_the_package():
    source = re.sub(r"\s+", " ", (ROOT / "selfreward" / "core" / "loop.py").read_text(encoding="utf-8"))
    [shown] = [block for language, block in BLOCKS if language == "python" and "prompt_generator.propose" in block]
    assert re.sub(r"\s+", " ", shown).strip() in source


def test_the_example_plugin_keeps_the_contract():
    [source] = [block for language, block in BLOCKS if language == "python" and "class Keyword" in block]
    module: dict = {"__name__": "keyword_example"}
    exec(compile(source, "README.md", "exec"), module)
    check_judge(module["Keyword"](module["KeywordConfig"]()))
    [plugin] = module["selfreward_judges"]()
    assert plugin.name == "keyword"


def test_the_entry_point_is_in_the_right_group():
    [block] = [block for language, block in BLOCKS if language == "toml"]
    assert "selfreward" in tomllib.loads(block)["project"]["entry-points"]
