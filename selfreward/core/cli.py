"""The command line: which verb is meant, and with which exit code it ends.

Exit codes: 0 fine, 2 the user's mistake, 3 a failure at run time.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from selfreward.core.errors import SelfRewardError

ASK_TRACEBACK = "HYDRA_FULL_ERROR"
"""Hydra's own switch: with ``HYDRA_FULL_ERROR=1`` errors keep their traceback."""

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Our own bars and messages stand alone; set one of these yourself to hear the libraries as well."""

VERBS = ("run", "plugins", "show", "compare", "report", "evaluate", "export", "help")
"""Each is a function of that name in ``selfreward.core.commands``, given the rest of the command line; ``run`` is what
is meant without one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    asked = os.environ.get(ASK_TRACEBACK, "0") not in ("", "0")
    try:
        _dispatch(arguments)
    except SelfRewardError as problem:
        if asked:
            traceback.print_exc()
        print(f"selfreward: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("selfreward: interrupted; the same command goes on from the last finished shard", file=sys.stderr)
        return 130
    return 0


def _dispatch(arguments: list[str]) -> None:
    verb = "run"
    if arguments and arguments[0] in VERBS:
        verb, *arguments = arguments
    elif "--help" in arguments or "-h" in arguments:
        verb = "help"
    elif "--version" in arguments:
        from selfreward import __version__

        print(f"selfreward {__version__}")
        return
    getattr(importlib.import_module(f"selfreward.core.commands.{verb}"), verb)(arguments)


def run_config(overrides: Sequence[str]) -> Any:
    """The checked config of these overrides, for use from Python: ``run_config(["judge=random"])``."""
    from selfreward.core.config.compose import compose_run, rewrite

    return compose_run(rewrite(list(overrides)))
