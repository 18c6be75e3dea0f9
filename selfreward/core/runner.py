"""One run, from its checked config to its folder: in this process, or in children of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from selfreward.core.config.resolve import Execution, RunConfig
from selfreward.core.loop import align
from selfreward.core.run.folder import run_folder
from selfreward.core.run.isolation import Inline, Parent
from selfreward.core.run.plan import Plan
from selfreward.core.run.preflight.check import preflight
from selfreward.core.run.progress import Screen
from selfreward.core.run.run import Run
from selfreward.core.run.system_errors import system_errors


def run(config: RunConfig) -> Path:
    """Do the whole run, in this process or in children of it, and return its folder.

    Raises:
        UserError: found before any work.
        StageError: a stage failed; what was finished stays in the store.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # a run has bars of its own
    screen, folder = Screen(), run_folder(config)
    this = Run(config, screen, Parent(config, folder, screen) if is_isolated(config) else Inline())
    try:
        with system_errors(this.resources.store.path, folder):
            preflight(this, dry_plan)
            this.start()
            align(this)
            this.end()
    except BaseException as problem:
        this.fail(problem)
        raise
    finally:
        this.close(wait=not isinstance(sys.exception(), KeyboardInterrupt))
    return folder


def is_isolated(config: RunConfig) -> bool:
    """Whether models are run and trained in children."""
    if config.options.execution is not Execution.auto or config.options.dry_run:
        return config.options.execution is Execution.isolated and not config.options.dry_run
    import torch

    return torch.cuda.is_available()


def dry_plan(config: RunConfig) -> Plan:
    """What a run would do: the same loop with nothing worked on and nothing said."""
    from rich.console import Console

    dry = Run(replace(config, options=replace(config.options, dry_run=True)), Screen(Console(quiet=True)))
    dry.start()
    align(dry)
    return dry.resources.plan
