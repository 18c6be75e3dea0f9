"""The command that gives a run again: what was overridden when it was started, as its folder keeps it."""

from __future__ import annotations

import shlex

from selfreward.core.report.run_folder import RunFolder

ELSEWHERE = ("run_dir", "runs_dir", "store.path")
"""Options that say where files go, not what is run."""


def command(run: RunFolder) -> str:
    """``python -m selfreward judge=length seed=1``; empty for a run of a version that did not keep it."""
    if run.overrides is None:
        return ""
    # the command line marks a plain option with ++ while it composes
    said = [override.removeprefix("++") for override in run.overrides]
    return shlex.join(["python", "-m", "selfreward", *(o for o in said if o.partition("=")[0] not in ELSEWHERE)])
