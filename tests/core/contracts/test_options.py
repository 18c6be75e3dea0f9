"""Options: bounds are checked, docs are read from the docstrings below the fields, and every sentence names its own."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.cli import run_config
from selfreward.core.config.kinds import HOOKS
from selfreward.core.config.registry import registry
from selfreward.core.contracts.options import (
    cross_problems,
    option,
    option_docs,
    option_rows,
    range_problems,
    without_execution,
)
from selfreward.core.run.run import Run


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass
class Inner:
    """Options of the inner part."""

    rate: float = option(0.5, gt=0, lt=1)
    """Share of rows."""


@dataclass
class Base:
    """Options all of them have."""

    n: int = option(4, ge=1)
    """How many,
    in rows."""
    colour: Colour = Colour.red
    """Which one."""


@dataclass
class Config(Base):
    """Options of the test."""

    seed: int | None = option(None, ge=0)
    top: float = option(1.0, ge=0, le=1)
    """Largest share."""
    inner: Inner = field(default_factory=Inner)
    """The inner part."""
    names: list[str] = field(default_factory=list)
    """Some names."""
    helped: int = field(default=3, metadata={"help": "as Hugging Face writes it"})

    def problems(self) -> list[str]:
        """Rules between options."""
        return ["n must be even when top is 0"] if self.top == 0 and self.n % 2 else []


@dataclass
class Redefined(Base):
    """One option with another default and doc."""

    n: int = option(8, ge=2)
    """Another doc."""


@dataclass
class Needs:
    """An option without a default."""

    path: str
    """Where it is."""


def test_defaults_are_plain_fields() -> None:
    assert Config() == Config(4, Colour.red, None, 1.0, Inner(0.5), [], 3)
    assert list(range_problems(Config(), "judge")) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(n=0), "judge.n=0 is out of range: it must be at least 1"),
        (Config(seed=-1), "judge.seed=-1 is out of range: it must be at least 0"),
        (Config(top=1.5), "judge.top=1.5 is out of range: it must be at most 1"),
        (Config(inner=Inner(0)), "judge.inner.rate=0 is out of range: it must be above 0"),
        (Config(inner=Inner(1.0)), "judge.inner.rate=1.0 is out of range: it must be below 1"),
        (Config(top=math.nan), "judge.top=nan is out of range: it must be at least 0 and at most 1"),
        (Config(n=math.inf), "judge.n=inf is out of range: it must be finite"),  # type: ignore[arg-type]
        (Config(n=-(10**400)), f"judge.n=-{10**400} is out of range: it must be at least 1"),
    ],
)
def test_one_sentence_for_what_is_out_of_range(config: Config, says: str) -> None:
    assert list(range_problems(config, "judge")) == [says]


def test_all_of_them_are_told() -> None:
    config = Config(n=0, seed=-1, top=-0.5, inner=Inner(2))
    told = [problem.split("=")[0] for problem in range_problems(config, "sampler")]
    assert told == ["sampler.n", "sampler.seed", "sampler.top", "sampler.inner.rate"]


@pytest.mark.parametrize("config", [Config(n=1, seed=0, top=0), Config(top=1), Config(n=10**400), Config(helped=-1)])
def test_bounds_are_inclusive_and_numbers_may_be_large(config: Config) -> None:
    assert list(range_problems(config, "judge")) == []


@settings(deadline=None)
@given(st.integers() | st.floats(), st.integers(-5, 5), st.integers(-5, 5))
def test_just_the_values_between_the_bounds_pass(value: float, low: int, high: int) -> None:
    inclusive = dataclasses.make_dataclass("Inclusive", [("x", float, option(0, ge=low, le=high))])
    exclusive = dataclasses.make_dataclass("Exclusive", [("x", float, option(0, gt=low, lt=high))])
    assert (list(range_problems(inclusive(value), "a")) == []) == (low <= value <= high)
    assert (list(range_problems(exclusive(value), "a")) == []) == (low < value < high)


def test_a_misspelt_bound_is_a_mistake_of_the_author() -> None:
    with pytest.raises(TypeError, match=r"ge, gt, le, lt; got max, min"):
        option(1, min=0, max=2)


def test_rules_between_options_are_the_configs_own() -> None:
    assert list(cross_problems(Config(n=3, top=0), "judge")) == ["judge: n must be even when top is 0"]
    assert list(cross_problems(Config(), "judge")) == []
    assert list(cross_problems(Inner(), "judge")) == []


def test_docs_stand_below_the_fields() -> None:
    assert option_docs(Config) == {
        "n": "How many, in rows.",
        "colour": "Which one.",
        "top": "Largest share.",
        "inner": "The inner part.",
        "names": "Some names.",
    }
    assert option_docs(Redefined) == {"n": "Another doc.", "colour": "Which one."}


def test_a_class_without_a_readable_source_has_no_docs() -> None:
    assert option_docs(dataclasses.make_dataclass("Made", [("x", int, 3)])) == {}

    @dataclass
    class Local:
        text: str = """
out of line"""
        """Its doc."""

    assert option_docs(Local) == {}
    assert option_rows(Local)[0][0] == "text"


def test_rows_show_name_type_default_and_doc() -> None:
    assert option_rows(Config) == [
        ("n", "int", "4", "How many, in rows. (at least 1)"),
        ("colour", "Colour", "red", "Which one."),
        ("seed", "int | None", "None", "(at least 0)"),
        ("top", "float", "1.0", "Largest share. (at least 0 and at most 1)"),
        ("inner", "Inner", "Inner(rate=0.5)", "The inner part."),
        ("names", "list[str]", "[]", "Some names."),
        ("helped", "int", "3", ""),
    ]
    assert option_rows(dataclasses.make_dataclass("Made", [("x", int | None, 3), ("y", int, 4)])) == [
        ("x", "int | None", "3", ""),
        ("y", "int", "4", ""),
    ]
    assert option_rows(Needs) == [("path", "str", "required", "Where it is.")]


PLUGINS = [(kind, name) for kind in HOOKS for name in registry().names(kind)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=lambda part: part)
def test_every_installed_option_is_documented_and_its_default_is_in_range(kind: str, name: str) -> None:
    config = registry().get(kind, name).config
    undocumented = {f.name for f in dataclasses.fields(config)} - set(option_docs(config))
    assert undocumented == set()
    required = {
        f.name: "x" for f in dataclasses.fields(config) if f.default is f.default_factory is dataclasses.MISSING
    }
    assert list(range_problems(config(**required), kind)) == []


# ------------------------------------------------------------------------------------- options that are no part of keys


@dataclass
class Worker:
    """Options of how work is done, and one of what is done."""

    rows: int = option(3, ge=1)
    """What is done."""
    patience: int = option(5, ge=0, execution=True)
    """How it is done."""
    inner: Inner = field(default_factory=Inner)
    """More of what is done."""


def test_execution_options_are_left_out_and_still_have_bounds() -> None:
    worker = Worker(patience=9)
    assert without_execution(worker, dataclasses.asdict(worker)) == {"rows": 3, "inner": {"rate": 0.5}}
    assert without_execution(worker, {}) == {}
    (problem,) = range_problems(Worker(patience=-1), "x")
    assert "x.patience=-1" in problem


@pytest.mark.parametrize(("match", "same"), [("content", True), ("exact", False)])
def test_execution_options_change_no_key_unless_keys_are_exact(match: str, same: bool) -> None:
    def identity(*overrides: str) -> object:
        run = Run(run_config([f"store.match={match}", *overrides]))
        return run.resources.identity.of(run.config.choices["optimizer"])

    assert (identity() == identity("optimizer.checkpoint_steps=3")) is same
    assert (identity() == identity("optimizer.gradient_checkpointing=true")) is same
    assert identity() != identity("optimizer.beta=0.3")
    assert identity() != identity("optimizer.threads=3")
