"""What the folder of a run tells: its config, its figures, and the rounds with their stages' counters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from selfreward.core.config.kinds import KINDS
from selfreward.core.errors import StageError, UserError
from selfreward.core.report.visible import visible
from selfreward.core.store.artifacts import STAGE_FOLDERS, Artifact


@dataclass(frozen=True)
class RoundFolder:
    """One round's folder in the run."""

    folder: Path
    manifests: Mapping[str, Mapping[str, Any]]
    """Stage -> manifest, of the stages that are finished."""
    start: str = ""
    """Role of the model that training starts from."""
    makes: str = ""
    """Role of the model it made; empty where it made none yet."""
    kind: str = ""
    """``policy`` or ``reward``: what it made."""

    @property
    def name(self) -> str:
        """``ift``, ``iter-01``."""
        return visible(self.folder.name)

    def figures(self, stage: str) -> Mapping[str, float]:
        """A stage's counters; empty where it is not finished."""
        return self.manifests.get(stage, {}).get("figures", {})

    def artifact(self, stage: str) -> Artifact:
        """A stage's table or checkpoint."""
        return Artifact.at(self.folder / STAGE_FOLDERS[stage])

    def parts(self, stage: str) -> Mapping[str, Any]:
        """What a stage's key is made of: its plugin, its models, ...; empty where it is not finished."""
        return self.manifests.get(stage, {}).get("parts", {})

    def shards(self, stage: str) -> list[Path]:
        """A table's Parquet files in order."""
        return [
            self.folder / STAGE_FOLDERS[stage] / file["file"] for file in self.manifests.get(stage, {}).get("files", [])
        ]

    @property
    def log(self) -> list[dict[str, float]]:
        """What an online optimizer has kept of each of its batches, beside the weights (``training.jsonl``)."""
        path = self.folder / STAGE_FOLDERS["model"] / "training.jsonl"
        if "model" not in self.manifests or not path.is_file():
            return []
        return [_finite(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """What filters dropped: stage, reason, number, and the first texts, a row for each reason."""
        rows = []
        for stage, manifest in self.manifests.items():
            for name, count in self.figures(stage).items():
                if name.startswith("dropped: ") and count:
                    reason = name.removeprefix("dropped: ")
                    texts = [text for file in manifest["files"] for text in file.get("examples", {}).get(reason, [])]
                    title = stage.replace("_", " ")
                    rows.append({"stage": title, "reason": reason, "count": _count(count), "examples": texts})
        return rows

    @property
    def row(self) -> dict[str, Any]:
        """The round in one row of the rounds' table."""
        counts = {stage: self.figures(stage).get("rows") for stage in STAGE_FOLDERS}
        counts["model"] = self.figures("model").get("training_rows")
        asked = self.manifests.get("judgements", {}).get("parts", {}).get("model")  # a model, not people
        votes = self.figures("judgements").get("votes") if asked else None
        unreadable = self.figures("judgements").get("unreadable", 0)
        return {
            "name": self.name,
            "start": self.start,
            "makes": self.makes,
            "stages": [
                {
                    "title": stage.replace("_", " "),
                    "plugin": self.parts(stage).get("plugin", {}).get("name", ""),
                    "count": _count(count),
                }
                for stage, count in counts.items()
            ],
            "readable": f"{1 - unreadable / votes:.1%}" if votes else "",
            "seconds": _count(sum(self.figures(stage).get("seconds", 0.0) for stage in STAGE_FOLDERS)),
            "tokens": _count(sum(self.figures(stage).get("new_tokens", 0.0) for stage in STAGE_FOLDERS)),
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on disk."""

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    rounds: list[RoundFolder] = field(default_factory=list)
    overrides: list[str] | None = None
    """What was said on the command line that started it; None where the folder does not tell."""

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @cached_property
    def models(self) -> list[str]:
        """The models that were measured, in the order they were made."""
        return list(dict.fromkeys(metric["model"] for metric in self.metrics))

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Group -> the plugins that were chosen, with the number of iterations and the seed."""
        rows = []
        for kind in KINDS:
            node = self.config.get(kind) or {}
            names = [node["name"]] if "name" in node else [each["name"] for each in node.values() if "name" in each]
            rows.append((kind.replace("_", " "), ", ".join(names) or "none"))
        return [*rows, ("iterations", str(self.config.get("iterations", ""))), ("seed", str(self.seed))]

    @property
    def unfinished(self) -> str:
        """How far the run has come, where that is not to its end."""
        wanted = self.config.get("iterations", 0)
        done = sum(round.name.startswith("iter-") and "model" in round.manifests for round in self.rounds)
        return "" if done >= wanted else f"The run has not reached its end: {done} of {wanted} iterations are done."

    def values(self, evaluator: str, metric: str) -> list[dict[str, Any]]:
        """The records of one figure that have a value, one a model."""
        found = [m for m in self.metrics if (m["evaluator"], m["metric"]) == (evaluator, metric)]
        return [m for m in found if m["value"] is not None]


def read_run(folder: Path) -> RunFolder:
    """Read what a run has written so far.

    Raises:
        UserError: not the folder of a run.
        StageError: a manifest or the figures are damaged.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.yaml'} is not the config of a run")
    metrics = [_finite(visible(metric)) for metric in _json(folder / "metrics.json") or []]
    kept = folder / "overrides.yaml"
    overrides = yaml.safe_load(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    return RunFolder(folder, config, metrics, _rounds(folder, config, metrics), overrides)


def flat(node: Any, where: str = "") -> dict[str, Any]:
    """A config as its options by their paths: ``{"judge.votes": 3}``; an empty group is an option, too."""
    if not isinstance(node, Mapping) or not node:
        return {where: node}
    parts = [flat(value, f"{where}.{key}" if where else str(key)) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def _finite(metric: dict[str, Any]) -> dict[str, Any]:
    """A figure whose NaN and infinities are no figures."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metric.items()}


def _rounds(folder: Path, config: Mapping[str, Any], metrics: list[dict[str, Any]]) -> list[RoundFolder]:
    """The rounds in the order in which their models were made; then the recipe's, the loop's last."""
    recipe = [name for name, node in (config.get("recipe") or {}).items() if isinstance(node, dict)]
    models = [m["model"] for m in metrics if (m["evaluator"], m["metric"]) == ("loop", "training_rows")]
    found = {path.parent.name for stage in STAGE_FOLDERS.values() for path in folder.glob(f"*/{stage}")}
    manifests = {name: _manifests(folder / name) for name in found}
    makes = {name: _made(manifests[name]) for name in found}

    def place(name: str) -> tuple[int, bool, int, str]:
        known = makes[name][0] in models
        at = models.index(makes[name][0]) if known else len(models)
        return at, name.startswith("iter-"), recipe.index(name) if name in recipe else 99, name

    rounds: list[RoundFolder] = []
    policy = "M0"
    for name in sorted(found, key=place):
        init_from = _option(manifests[name].get("model", {}), "init_from", "policy")
        made, kind = makes[name]
        if not made and "model" in manifests[name]:  # of a run before manifests said so: the n-th model trained
            made, kind = (models[len(rounds)] if len(rounds) < len(models) else ""), "policy"
        start = policy if init_from == "policy" else init_from
        rounds.append(RoundFolder(folder / name, manifests[name], start, made, kind))
        policy = made if made and kind == "policy" else policy
    return rounds


def _manifests(folder: Path) -> dict[str, dict[str, Any]]:
    found = {stage: _json(folder / place / "manifest.json") for stage, place in STAGE_FOLDERS.items()}
    return {stage: manifest for stage, manifest in found.items() if manifest}


def _made(manifests: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Name and kind (``policy`` or ``reward``) of the model a round has made."""
    name, kind = manifests.get("model", {}).get("parts", {}).get("makes") or ("", "")
    return str(name), str(kind)


def _option(manifest: Mapping[str, Any], name: str, default: str) -> str:
    return str(manifest.get("parts", {}).get("plugin", {}).get("options", {}).get(name, default))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise StageError(f"{path} is damaged: {problem}") from None


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
