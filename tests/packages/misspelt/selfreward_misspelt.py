"""A package whose hook has a typing error in its name."""

from dataclasses import dataclass

from selfreward import Plugin, hookimpl


@dataclass
class LimerickConfig:
    """Options of ``judge=limerick``."""


@hookimpl
def selfreward_jugdes():
    """Never called under this name."""
    return [Plugin("limerick", "selfreward_misspelt:Limerick", LimerickConfig)]
