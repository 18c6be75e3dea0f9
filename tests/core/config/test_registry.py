"""What of a plugin becomes part of the store's keys: its source, and what it shares with its neighbours."""

import importlib
import sys

import pytest

from selfreward.core.contracts.plugin import Plugin

MODULE = "from edited.judges import shared\n\nclass Judge:\n    bonus = shared.BONUS\n"


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """``digest(file, text)``: write a file of the package ``edited.judges`` and take the plugin's digest anew."""
    folder = tmp_path / "edited" / "judges"
    folder.mkdir(parents=True)
    files = {"mine": MODULE, "shared": "BONUS = 1\n", "other": "BONUS = 5\n", "__init__": "", "../__init__": ""}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def take(name: str = "mine", text: str = MODULE) -> str:
        (folder / f"{name}.py").write_text(text)
        for module in [m for m in sys.modules if m.split(".")[0] == "edited"]:
            del sys.modules[module]
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        return Plugin("mine", "edited.judges.mine:Judge", object).source_digest()

    return take


def test_the_same_source_has_the_same_digest(digest):
    assert digest() == digest()


def test_an_edit_of_the_plugin_is_noticed(digest):
    assert digest() != digest("mine", MODULE + "# edited\n")


def test_an_edit_of_a_module_that_it_shares_with_its_neighbours_is_noticed(digest):
    assert digest() != digest("shared", "BONUS = 2\n")


def test_an_edit_of_a_neighbour_that_it_does_not_import_is_not(digest):
    assert digest() == digest("other", "BONUS = 6\n")
