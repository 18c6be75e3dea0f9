"""``selfreward plugins``: what is installed, where it comes from, and every option."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from selfreward.core.config.kinds import HOOKS
from selfreward.core.config.registry import Registry, did_you_mean, registry
from selfreward.core.contracts.options import option_rows
from selfreward.core.errors import UserError


def plugins(arguments: Sequence[str]) -> None:
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
