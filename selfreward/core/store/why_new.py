"""Why a stage is not in the store: what sets its key apart from the nearest one that is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from selfreward.core.store.artifacts import FORMAT, Artifact, Store

INPUTS = ("prompts", "candidates", "judgements", "training", "start", "reference", "model", "answers", "previous")
"""Parts of a key that stand for other artifacts: that they differ is a consequence, not the reason."""


def why_new(store: Store, artifact: Artifact) -> str:
    """One phrase: ``judge.votes 3, was 2``, ``other candidates``; empty when the store has nothing like it.

    Compared is the stored artifact of the same stage, round and iteration whose key differs in the fewest places.
    """
    wanted = json.loads(json.dumps(artifact.key.parts))
    nearest: list[str] | None = None
    for parts in _stored(store, artifact):
        if any(parts.get(name) != wanted.get(name) for name in ("round", "iteration", "name")):
            continue
        found = list(differences(wanted, parts))
        if nearest is None or len(found) < len(nearest):
            nearest = found
    return "; ".join(nearest[:3]) + (f"; and {len(nearest) - 3} more" if len(nearest) > 3 else "") if nearest else ""


def _stored(store: Store, artifact: Artifact) -> Iterator[dict[str, Any]]:
    for path in sorted((store.path / artifact.key.stage).glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["format"] == FORMAT:  # an older format's parts mean something else
                yield manifest["parts"]
        except (ValueError, KeyError, TypeError):
            continue  # it is refused by name when it is asked for; here it is only not the nearest


def differences(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two keys, told as people say it; other inputs only where nothing else does."""
    reasons = [name for name in sorted({*wanted, *stored}) if wanted.get(name) != stored.get(name)]
    own = [name for name in reasons if name not in INPUTS]
    for name in own or reasons:
        mine, theirs = wanted.get(name), stored.get(name)
        if name in INPUTS:
            yield f"other {name if name not in ('start', 'reference') else name + ' model'}"
        elif isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from _plugin_differences(mine, theirs)
        elif _short(mine) and _short(theirs):
            yield f"{name} {mine}, was {theirs}"
        else:
            yield f"other {name}"


def _plugin_differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    if mine.get("name") != theirs.get("name"):
        yield f"{mine.get('name')}, was {theirs.get('name')}"
        return
    options, others = mine.get("options") or {}, theirs.get("options") or {}
    for option in sorted({*options, *others}):
        if options.get(option) != others.get(option):
            yield f"{mine['name']}.{option} {options.get(option)}, was {others.get(option)}"
    if mine.get("source") != theirs.get("source"):
        yield f"the source of {mine['name']} was edited"
    if mine.get("files") != theirs.get("files"):
        yield f"a file that {mine['name']} reads was edited"


def _short(value: Any) -> bool:
    """A number or a word, not a digest."""
    return isinstance(value, int | float | bool | None) or (isinstance(value, str) and len(value) < 16)
