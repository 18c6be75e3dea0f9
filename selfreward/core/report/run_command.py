"""The command that gives a run's config again: its choices, and every option that differs from theirs.

It is found by composing: what the shortest choices leave different becomes ``option=value``, and the result is composed
once more and compared. A command that would give another config is not shown.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from selfreward.core.config.kinds import LIST_KINDS
from selfreward.core.errors import SelfRewardError, UserError
from selfreward.core.report.run_folder import RunFolder, flat

ELSEWHERE = ("run_dir", "runs_dir", "store.path")
"""Options that say where files go, not what is run."""


def command(run: RunFolder) -> str:
    """``python -m selfreward judge=length seed=1``; empty where no such command is found."""
    experiment = run.folder.resolve().parent.name
    with _hydra_left_as_it_was():
        found = [_overrides(run.config, start) for start in ([], [f"experiment={experiment}"])]
    known = [overrides for overrides in found if overrides is not None]
    if not known:
        return ""
    shortest = min(known, key=lambda overrides: len(overrides))
    return " ".join(["python -m selfreward", *map(shlex.quote, shortest)])


def _overrides(config: Mapping[str, Any], start: Sequence[str]) -> list[str] | None:
    wanted = _options(config)
    try:
        choices = [*start, *_choices(config, _composed(start))]
        choices += _required(choices, wanted)
        composed = _options(_composed(choices))
        options = [f"{key}={_value(value)}" for key, value in wanted.items() if composed.get(key, ...) != value]
        again = _options(_composed([*choices, *options]))
    except SelfRewardError:  # a plugin that is not installed here, or an experiment of another folder
        return None
    # what the config does not name is younger than the run
    return [*choices, *options] if all(again.get(key, ...) == value for key, value in wanted.items()) else None


def _required(choices: Sequence[str], wanted: Mapping[str, Any]) -> list[str]:
    """What is set of the chosen groups, where they cannot be composed without some of it."""
    try:
        _composed(choices)
    except UserError:
        chosen = {choice.partition("=")[0] for choice in choices}
        own = {k: v for k, v in wanted.items() if k.partition(".")[0] in chosen and not k.endswith(".name")}
        return [f"{key}={_value(value)}" for key, value in own.items() if value is not None]
    return []


def _composed(overrides: Sequence[str]) -> Mapping[str, Any]:
    from selfreward.core.config.compose import compose_run, rewrite

    return compose_run(rewrite(overrides)).composed


def _choices(config: Mapping[str, Any], composed: Mapping[str, Any]) -> Iterator[str]:
    """The groups whose plugins differ; selector and optimizer together, since one alone brings its partner."""
    from selfreward.core.config.compose import default_choices

    single = [kind for kind in default_choices() if (config.get(kind) or {}).get("name")]
    differ = {kind for kind in single if config[kind]["name"] != composed[kind]["name"]}
    if differ & {"selector", "optimizer"}:
        differ |= {"selector", "optimizer"}
    yield from (f"{kind}={config[kind]['name']}" for kind in single if kind in differ)
    for kind in LIST_KINDS:
        if list(config.get(kind) or {}) != list(composed.get(kind) or {}):
            yield f"{kind}=[{','.join(config.get(kind) or {})}]"


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in flat(config).items() if path not in ELSEWHERE}


def _value(value: Any) -> str:
    """A value in Hydra's grammar; a string that could be read as something else is quoted."""
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", value) and value.lower() not in (
            "null",
            "true",
            "false",
            "nan",
            "inf",
        )
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


@contextmanager
def _hydra_left_as_it_was() -> Iterator[None]:
    """A run's end is inside Hydra's own task, whose state composing would take away."""
    from hydra.initialize import get_gh_backup, restore_gh_from_backup

    before = get_gh_backup()
    try:
        yield
    finally:
        restore_gh_from_backup(before)
