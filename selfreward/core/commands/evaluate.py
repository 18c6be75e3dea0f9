"""``selfreward evaluate``: measure a checkpoint, train nothing.

It is a run without rounds: ``recipe=none iterations=0``, and ``data=none`` unless data is named. So every evaluator,
option, engine and figure is the one of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfreward.core.commands.run import run
from selfreward.core.config.registry import registry
from selfreward.core.errors import UserError

USAGE = "python -m selfreward evaluate model=hf model.path=FOLDER evaluators=[NAME,...] [option=value ...]"


def evaluate(arguments: Sequence[str]) -> None:
    """Run the named evaluators on ``model=``.

    Raises:
        UserError: no evaluator is named, or anything that a run would refuse.
    """
    named = {argument.lstrip("+~").split("=")[0] for argument in arguments}
    if "evaluators" not in named and "experiment" not in named:
        known = ", ".join(registry().names("evaluators"))
        raise UserError(f"say what to measure: evaluators=[NAME,...] ({known})\nusage: {USAGE}")
    given = [] if "data" in named else ["data=none"]
    run(["recipe=none", "iterations=0", *given, *arguments])
