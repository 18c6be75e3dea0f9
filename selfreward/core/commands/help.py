"""``selfreward help`` and ``--help``: how to use it, the groups, and the options of the run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from selfreward.core.config.kinds import KINDS, LIST_KINDS, MEMBER_KINDS
from selfreward.core.config.registry import registry
from selfreward.core.config.resolve import EvaluationOptions, RunOptions, StoreOptions
from selfreward.core.contracts.options import option_rows

USAGE = """\
selfreward: a language model improves itself by its own judgement (arXiv:2401.10020).

  python -m selfreward [group=plugin] [option=value] ...       one run
  python -m selfreward -m selector=best_worst,positive_only    a sweep
  python -m selfreward plugins [GROUP]                         what is installed; with a group, every option
  python -m selfreward show RUN [PROMPT_ID]                    a prompt's answers, votes and selection
  python -m selfreward report RUN ...                          report.html of the run: figures, plots, samples
  python -m selfreward compare RUN RUN ...                     figures side by side, mean ± 95 % over seeds
  python -m selfreward [...] --cfg job                         the composed config
  python -m selfreward --hydra-help                            Hydra's own flags
"""


def help(arguments: Sequence[str] = ()) -> None:
    """Print usage, groups with their plugins, and the options of the run; whatever else was typed."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(USAGE, markup=False)
    console.print("[bold]Groups[/]")
    for kind in KINDS:
        example = f"{kind}=[A,B]" if kind in LIST_KINDS else f"{kind}=NAME"
        console.print(f"  {example:<26} {', '.join(registry().names(kind))}", markup=False)
    for kind in MEMBER_KINDS:
        members = f"members: {kind}"
        console.print(f"  {members:<26} {', '.join(registry().names(kind))}", markup=False)
    console.print("\n[bold]The run[/]")
    for prefix, schema in (("", RunOptions), ("store.", StoreOptions), ("evaluation.", EvaluationOptions)):
        for name, _, default, doc in option_rows(schema):
            if name not in KINDS and name not in ("store", "evaluation", "judge"):
                console.print(f"  {prefix + name + '=' + default:<42} {doc}", markup=False)
