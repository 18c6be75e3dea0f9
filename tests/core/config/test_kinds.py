"""What a plugin's class says of itself is checked when it is first loaded, and told with its name and package."""

from __future__ import annotations

import dataclasses

import pytest

from selfreward import Judge, Optimizer, OptimizerConfig, Plugin, Preference, Selector, UserError
from selfreward.core.config.kinds import HOOKS, TABLE
from selfreward.core.config.registry import Registered, registry


@dataclasses.dataclass
class Options:
    """None."""


class Unfinished(Judge):
    """Lacks ``score``."""


class Scoring(Judge):
    """Complete but for its unit."""

    unit = "rows"

    def score(self, answered, context):
        return []


class Silent(Selector):
    """Does not say what it writes."""

    def select(self, judged):
        return iter(())


class Texts(Silent):
    """Writes what nobody reads."""

    writes = str


class Trainer(Optimizer):
    """Makes something unheard of, from rows that are none."""

    reads = (Preference, int)
    makes = "critic"

    def update(self, training, context):
        return {}


@pytest.mark.parametrize(
    ("kind", "made", "problems"),
    [
        ("judge", Options, ["Options is no Judge; derive it from selfreward.Judge"]),
        ("judge", Silent, ["Silent is no Judge; derive it from selfreward.Judge"]),
        ("judge", Unfinished, ["Unfinished does not implement score, which every Judge must"]),
        ("judge", Scoring, ["Scoring.unit='rows' must be one of row, prompt_group, table"]),
        ("selector", Silent, ["Silent must say which rows it writes: writes = one of Preference, "]),
        ("selector", Texts, ["Texts must say which rows it writes: writes = one of Preference, "]),
        (
            "optimizer",
            Trainer,
            [
                "Options must extend selfreward.OptimizerConfig, the options every optimizer has",
                "Trainer must say which rows it reads: reads = one of Preference, ",
                "Trainer.makes='critic' must be one of policy, reward",
            ],
        ),
    ],
)
def test_a_class_that_does_not_do_what_its_kind_asks_is_refused_when_it_is_loaded(monkeypatch, kind, made, problems):
    plugin = Plugin("mine", f"{__name__}:{made.__name__}", Options)
    monkeypatch.setitem(registry().kinds[kind], "mine", [Registered(plugin, "strangers 0.1")])
    with pytest.raises(UserError) as caught:
        registry().get(kind, "mine").load()
    assert len(caught.value.problems) == len(problems)
    for told, problem in zip(caught.value.problems, problems, strict=True):
        assert told.startswith(f"{kind} 'mine' of strangers 0.1: {problem}")


@pytest.mark.parametrize("kind", TABLE, ids=[kind.name for kind in TABLE])
def test_every_built_in_passes_and_its_options_extend_what_its_kind_has(kind):
    for name in registry().names(kind.name):
        assert issubclass(registry().get(kind.name, name).load(), kind.base)


def test_names_and_hooks_are_unique():
    assert len(HOOKS) == len(TABLE) == len({kind.hook for kind in TABLE})
    assert OptimizerConfig in {kind.options for kind in TABLE}
