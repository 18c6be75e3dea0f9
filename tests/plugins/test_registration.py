"""The built-ins come in through the public door, are complete, and cost nothing until they are used."""

import subprocess
import sys

import pytest

from selfreward import Optimizer, Selector
from selfreward.core.plugins import HOOKS
from selfreward.plugins import registration
from selfreward.testing import check_plugin

BUILT_IN = [(kind, plugin) for kind, hook in HOOKS.items() for plugin in getattr(registration, hook)()]
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "numpy",
    "scipy",
    "pyarrow",
    "peft",
    "accelerate",
    "rapidfuzz",
    "sacrebleu",
)


@pytest.mark.parametrize(("kind", "plugin"), BUILT_IN, ids=[f"{kind}={plugin.name}" for kind, plugin in BUILT_IN])
def test_a_built_in_loads_with_documented_options(kind, plugin):
    check_plugin(plugin)


def test_names_are_unique_in_their_kind():
    names = [(kind, plugin.name) for kind, plugin in BUILT_IN]
    assert len(set(names)) == len(names)


def test_partners_exist_and_write_what_the_other_reads():
    selectors = {plugin.name: plugin for kind, plugin in BUILT_IN if kind == "selector"}
    optimizers = {plugin.name: plugin for kind, plugin in BUILT_IN if kind == "optimizer"}
    pairs = [(selector, optimizers[selector.partner]) for selector in selectors.values()]
    pairs += [(selectors[optimizer.partner], optimizer) for optimizer in optimizers.values()]
    for selector, optimizer in pairs:
        assert issubclass(selector.load(), Selector)
        assert issubclass(optimizer.load(), Optimizer)
        assert issubclass(selector.load().writes, optimizer.load().reads)


def test_importing_the_registration_imports_nothing_heavy():
    code = f"import sys, selfreward.plugins.registration\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
