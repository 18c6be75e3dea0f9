"""``--help`` and ``selfreward plugins``: what is installed, where it comes from, and every option."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from selfreward.core.config.kinds import HOOKS, KINDS, LIST_KINDS, MEMBER_KINDS
from selfreward.core.config.registry import Registry, did_you_mean, registry
from selfreward.core.contracts.options import option_rows
from selfreward.core.errors import UserError

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


def print_help() -> None:
    """Usage, groups with their plugins, and the options of the run."""
    from selfreward.core.config.resolve import EvaluationOptions, RunOptions, StoreOptions

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


def print_plugins(arguments: Sequence[str]) -> None:
    """Print all groups with one line a plugin; with a group's name, that group with all options.

    Raises:
        UserError: there is no such group.
    """
    found = registry()
    console = Console(soft_wrap=True, highlight=False)
    for kind in arguments:
        if kind not in HOOKS:
            raise UserError(
                f"there is no group '{kind}'; {did_you_mean(kind, HOOKS) or 'there are: ' + ', '.join(HOOKS)}"
            )
    for kind in arguments or HOOKS:
        _print_kind(console, found, kind, with_options=bool(arguments))
    for package, why in found.broken.items():
        console.print(f"[red]broken[/]   {escape(package)}: {escape(why)}")
    for package in found.blocked:
        console.print(f"[yellow]blocked[/]  {escape(package)} (SELFREWARD_BLOCK)")


def _print_kind(console: Console, found: Registry, kind: str, with_options: bool) -> None:
    console.print(f"[bold]{kind}[/]")
    for name in found.names(kind):
        providers = found.kinds[kind][name]
        clash = " [red]provided twice[/]" if len(providers) > 1 else ""
        for entry in providers:
            partner = f", brings {entry.plugin.partner}" if entry.plugin.partner else ""
            console.print(f"  {name:<20} {escape(entry.package):<18} {escape(entry.plugin.source)}{partner}{clash}")
        if with_options:
            for option, kind_of, default, doc in option_rows(providers[0].plugin.config):
                console.print(f"      {option}={escape(default)}  [dim]{escape(kind_of)}[/]  {escape(doc)}")
