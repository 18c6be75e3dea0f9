"""The built-ins come in through the public door, are complete, and cost nothing until they are used."""

import subprocess
import sys

import pytest

from selfreward import Optimizer, Selector
from selfreward.core.config.kinds import HOOKS
from selfreward.core.config.registry import registry
from selfreward.testing import check_plugin

BUILT_IN = [
    (kind, each.plugin)
    for kind in HOOKS
    for providers in registry().kinds[kind].values()
    for each in providers
    if each.package.startswith("selfreward ")
]
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


def test_collecting_the_built_ins_imports_nothing_heavy():
    code = f"""
import sys
from selfreward.core.config.registry import registry
assert not registry().broken
print([m for m in {HEAVY} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
