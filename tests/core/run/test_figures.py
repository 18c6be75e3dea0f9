"""How a metric is shown is declared where it is made; what nobody declares is shown by its name."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from selfreward import Evaluator, Figure, Metric, Plugin
from selfreward.core.config.registry import Registered, registry
from selfreward.core.contracts.evaluation import FigureSource
from selfreward.core.run.figures import figure_source, in_order
from selfreward.core.run.progress import Screen
from selfreward.core.run.summary import print_summary


class Coffee(FigureSource):
    title = "At the table"
    figures = (
        Figure("cups", "Cups", "{:.1f}", "lower", row="coffee, cups"),
        Figure("*_spilt", better="lower", share=True),
        Figure("half_spilt", "Half of it spilt"),
    )


@dataclass
class CoffeeConfig:
    """It has no options."""


class Barista(Evaluator, Coffee):
    config: CoffeeConfig

    def evaluate(self, context):
        return []


@pytest.fixture
def stranger(monkeypatch):
    found = Registered(Plugin.of("coffee", Barista), "strangers 1.0")
    monkeypatch.setitem(registry().kinds["evaluators"], "coffee", [found])


def table(*metrics: Metric) -> str:
    screen, out = Screen(), io.StringIO()
    screen.console = Console(file=out, width=120)
    print_summary(screen, metrics)
    return out.getvalue()


def test_a_name_comes_before_a_pattern_and_a_pattern_before_nothing():
    assert Coffee.figure("half_spilt").words == "Half of it spilt"
    assert Coffee.figure("all_spilt") == Figure("all_spilt", better="lower", share=True)
    assert Coffee.figure("all_spilt").words == "All spilt"
    assert Coffee.figure("of_it") == Figure("of_it")


def test_a_value_is_written_as_declared():
    assert Figure("a", format="{:.2f}", share=True).written(0.5) == "0.50"
    assert Figure("a", share=True).written(0.5) == "50%"
    assert Figure("a").written(1234.5) == "1.23e+03"


def test_a_strangers_rows_stand_before_the_loops_and_the_rest_behind(stranger):
    assert in_order(["gone", "loop", "coffee", "oracle", "elo"]) == ["oracle", "coffee", "loop", "gone", "elo"]
    lines = table(
        Metric("M1", "elo", "rating", 1000.0, 990.0, 1010.0, 12),
        Metric("M1", "loop", "seconds", 2.0, None, None, 1),
        Metric("M1", "coffee", "cups", 3.04, None, None, 9),
        Metric("M1", "coffee", "all_spilt", 0.5, None, None, 9),
        Metric("M1", "training", "training_loss", 0.5, None, None, 9),
    ).splitlines()
    assert [line.split("  ")[0] for line in lines if line.strip()][1:] == [
        "coffee, cups", "seconds of its round", "elo: rating"
    ]  # fmt: skip
    assert "3.0" in lines[2]


def test_what_is_not_installed_is_shown_by_its_name():
    assert figure_source("an_evaluator_that_is_gone") is FigureSource
    assert "an_evaluator_that_is_gone: of it  0.5 n=9" in table(
        Metric("M1", "an_evaluator_that_is_gone", "of_it", 0.5, None, None, 9)
    )
