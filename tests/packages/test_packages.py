"""A stranger's package adds a judge without touching this repository; a bad one harms nobody but itself."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest
import yaml

from selfreward.core.config.registry import collect

HAIKU = "selfreward-haiku 0.3"


# ------------------------------------------------------------------------------------------------------- a good package


def test_the_package_is_listed_with_its_version_and_options(cli, stranger):
    done = cli("plugins", "judge", path=[stranger("haiku")])
    assert done.code == 0
    assert re.search(rf"haiku +{re.escape(HAIKU)} +Bashō, 1686", done.out)
    assert "wanted=17  int  How many syllables a perfect answer has. (at least 1 and at most 100)" in done.out
    assert "unit=syllables  Unit  Count syllables or words." in done.out
    assert "llm_cot" in done.out


def test_the_judge_is_chosen_by_its_name_with_no_yaml_at_all(cli, stranger):
    done = cli("judge=haiku", "judge.wanted=20", "judge.unit=words", "--cfg", "job", path=[stranger("haiku")])
    assert done.code == 0, done.err
    assert yaml.safe_load(done.out)["judge"] == {"name": "haiku", "wanted": 20, "tolerance": 2.0, "unit": "words"}


def test_its_options_are_checked_like_those_of_built_ins(cli, stranger):
    wrong = ["judge.wanted=many", "judge.tolerance=0", "judge.unit=letters", "judge.wnated=3"]
    done = cli("judge=haiku", *wrong, path=[stranger("haiku")])
    assert (done.code, done.out) == (2, "")
    for problem in (
        "4 problems:",
        "judge.wanted=many: Value 'many' of type 'str' could not be converted to Integer",
        "judge.tolerance=0.0 is out of range: it must be above 0",
        "judge.unit=letters: Invalid value 'letters', expected one of [syllables, words]",
        "there is no option 'judge.wnated'; did you mean 'wanted'?",
    ):
        assert problem in done.err


def test_rules_between_its_options_are_checked(cli, stranger):
    done = cli("judge=haiku", "judge.wanted=60", "judge.unit=words", path=[stranger("haiku")])
    assert (done.code, done.err) == (2, "selfreward: judge: wanted=60 words are no haiku: 50 at most\n")


def test_its_name_is_proposed_to_who_misspells_it(cli, stranger):
    done = cli("judge=hiaku", path=[stranger("haiku")])
    assert (done.code, done.err) == (2, "selfreward: judge=hiaku: there is no judge 'hiaku'; did you mean 'haiku'?\n")


METRIC = """
from selfreward import Prompt
from selfreward.core.cli import run_config
judge = run_config(["judge=metric", "judge.metrics={rhyme: {vowels: ae}, length: {}}"]).choices["judge"].build()
assert judge.metrics["rhyme"](Prompt.of("x", "ift"), "a frog\\nthe sea.", []) == 0.5
"""


def test_its_metric_is_a_reward_like_those_of_built_ins(cli, python, stranger):
    site = [stranger("haiku")]
    done = cli("plugins", "metric", path=site)
    assert (done.code, "rouge_l" in done.out) == (0, True)
    assert re.search(rf"rhyme +{re.escape(HAIKU)}", done.out)
    assert "vowels=aeiou  str  What counts as a vowel." in done.out
    assert python("-c", METRIC, path=site).err == ""
    done = cli("judge=metric", "judge.metrics=[ryhme]", path=site)
    assert (done.code, done.err) == (
        2,
        "selfreward: judge.metrics.ryhme: there is no metric 'ryhme'; did you mean 'rhyme'?\n",
    )


CHECKS = """
from selfreward.testing import check_judge, check_plugin
from selfreward_haiku.judge import Haiku, HaikuConfig
from selfreward_haiku.plugin import selfreward_judges
assert check_plugin(selfreward_judges()[0]) is Haiku
rows = check_judge(Haiku(HaikuConfig(wanted=6)))
assert any(row.score is None for row in rows) and any(row.score for row in rows)
"""


def test_it_can_be_tested_with_the_contract_suite(python, stranger):
    done = python("-c", CHECKS, path=[stranger("haiku")])
    assert done.code == 0, done.err


CONFIGS = """
from selfreward import Rubric
from selfreward.core.cli import run_config
assert Rubric.load("haiku").high == 3 and Rubric.load("additive").high == 5
run = run_config(["experiment=short_haiku"])
judge = run.choices["judge"]
assert (judge.name, judge.config.wanted, run.lists["evaluators"][0].name) == ("haiku", 12, "oracle")
assert (run.experiment, run.options.iterations, run.choices["sampler"].config.n) == ("short_haiku", 1, 6)
assert run_config(["experiment=short_haiku", "judge.wanted=3"]).choices["judge"].config.wanted == 3
"""


def test_its_folder_joins_the_config_search_path(python, stranger):
    done = python("-c", CONFIGS, path=[stranger("haiku")])
    assert done.code == 0, done.err


def test_a_misspelt_experiment_gets_the_strangers_name(cli, stranger):
    done = cli("experiment=short_haikus", path=[stranger("haiku")])
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean 'short_haiku'?" in done.err


def test_the_folder_is_still_on_the_search_path_beside_a_config_dir(cli, stranger, tmp_path):
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - short_haiku\njudge: {wanted: 0}\n")
    done = cli("--config-dir", "own", "experiment=mine", path=[stranger("haiku")])
    assert (done.code, done.err) == (2, "selfreward: judge.wanted=0 is out of range: it must be at least 1\n")


def test_it_can_be_blocked(cli, stranger):
    site = [stranger("haiku")]
    assert f"blocked  {HAIKU} (SELFREWARD_BLOCK)" in cli("plugins", path=site, SELFREWARD_BLOCK="selfreward_haiku").out
    done = cli("judge=haiku", path=site, SELFREWARD_BLOCK="selfreward_haiku")
    assert done.code == 2
    assert "there is no judge 'haiku'" in done.err


# -------------------------------------------------------------------------------------------------------- bad packages


def test_a_broken_package_is_listed_and_stops_nothing(cli, stranger):
    site = [stranger("broken")]
    done = cli("plugins", path=site)
    assert done.code == 0
    why = "ModuleNotFoundError: No module named 'a_library_that_nobody_has'"
    assert f"broken   selfreward-broken 0.1: {why}" in done.out
    assert cli("--help", path=site).code == 0
    composed = cli("judge=random", "--cfg", "job", path=site)
    assert (composed.code, composed.err) == (0, "")


def test_a_broken_package_is_named_when_an_unknown_name_is_asked_for(cli, stranger):
    done = cli("judge=sonnet", path=[stranger("broken")])
    assert done.code == 2
    assert "there is no judge 'sonnet'" in done.err
    assert "selfreward-broken 0.1 could not be loaded and may be the one that has it: ModuleNotFoundError" in done.err


def test_two_providers_of_one_name_are_both_named_and_the_proposed_mend_works(cli, stranger):
    site = [stranger("haiku"), stranger("clashing")]
    assert cli("plugins", "judge", path=site).out.count("provided twice") == 2
    done = cli("judge=haiku", path=site)
    assert done.code == 2
    assert "judge 'haiku' is provided by selfreward-clashing 0.1 and selfreward-haiku 0.3" in done.err
    mend = re.search(r"SELFREWARD_BLOCK=([\w-]+)", done.err)
    assert mend, done.err
    other = {"selfreward-haiku": "selfreward-clashing", "selfreward-clashing": "selfreward-haiku"}[mend[1]]
    for blocked, option in {"selfreward-haiku": "lines", "selfreward-clashing": "wanted"}.items():
        assert blocked in (mend[1], other)
        composed = cli("judge=haiku", "--cfg", "job", path=site, SELFREWARD_BLOCK=blocked)
        assert composed.code == 0
        assert option in yaml.safe_load(composed.out)["judge"]


def test_a_clash_concerns_only_that_name(cli, stranger):
    done = cli("judge=random", "--cfg", "job", path=[stranger("haiku"), stranger("clashing")])
    assert (done.code, yaml.safe_load(done.out)["judge"]["name"]) == (0, "random")


def test_a_misspelt_hook_is_told_with_the_right_name(cli, stranger):
    done = cli("plugins", path=[stranger("misspelt")])
    assert done.code == 0
    line = next(line for line in done.out.splitlines() if line.startswith("broken"))
    assert "selfreward-misspelt 0.1" in line
    assert "selfreward_jugdes" in line
    assert "did you mean 'selfreward_judges'?" in line
    assert "selfreward_jugdes" in cli("judge=limerick", path=[stranger("misspelt")]).err


# What else a stranger's module may do. It is loaded from a real file, through the real entry point.
START = "from dataclasses import dataclass\nfrom selfreward import Plugin, hookimpl\n@dataclass\nclass C: pass\n"
BAD_MODULES = {
    "syntax": ("def (", "SyntaxError"),
    "exits": ("import sys; sys.exit(1)", "SystemExit"),
    "hook raises": ("@hookimpl\ndef selfreward_judges():\n    return 1 / 0", "ZeroDivisionError"),
    "hook returns nothing": ("@hookimpl\ndef selfreward_judges(): pass", "selfreward_judges"),
    "no Plugin": ("@hookimpl\ndef selfreward_judges():\n    return ['x']", "must return selfreward.Plugin records"),
    "config is no dataclass": (
        "@hookimpl\ndef selfreward_judges():\n    return [Plugin('x', 'm:X', int)]",
        "config of 'x' must be a dataclass",
    ),
    "config instance": (
        "@hookimpl\ndef selfreward_judges():\n    return [Plugin('x', 'm:X', C())]",
        "config of 'x' must be a dataclass",
    ),
    "target without a class": (
        "@hookimpl\ndef selfreward_judges():\n    return [Plugin('x', 'm.X', C)]",
        "target of 'x' must read package.module:Class, got 'm.X'",
    ),
    "unknown argument": ("@hookimpl\ndef selfreward_stage_finished(evnet): pass", "evnet"),
}


@pytest.mark.parametrize(("body", "why"), BAD_MODULES.values(), ids=BAD_MODULES)
def test_a_bad_module_is_remembered_with_its_reason_and_the_next_one_loads(tmp_path, monkeypatch, request, body, why):
    name = "bad_" + re.sub(r"\W", "_", request.node.callspec.id)
    (tmp_path / f"{name}.py").write_text(START + body)
    good = f"{START}@hookimpl\ndef selfreward_judges():\n    return [Plugin('good', 'm:X', C)]"
    (tmp_path / f"{name}_good.py").write_text(good)
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(n, n, "selfreward") for n in (name, f"{name}_good")]
    found = collect(points, {})
    assert list(found.broken) == [name]
    assert why in found.broken[name]
    assert found.names("judge") == ["good"]
