"""The folder of a run: ``runs/<experiment>/<choices>-<signature>/``, with relative links into the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf

from selfreward.core.config.compose import default_choices
from selfreward.core.config.resolve import RunConfig
from selfreward.core.contracts.evaluation import Metric
from selfreward.core.contracts.records import digest

NOT_THE_EXPERIMENT = ("run_dir", "runs_dir", "store", "engine", "execution", "launch", "dry_run", "monitors")
"""Settings that do not make it another run: where it is kept, how models are run and trained, who watches."""


def run_folder(config: RunConfig) -> Path:
    """``runs/<experiment>/<ablation>,<choices>-<signature>``: the same config is the same folder."""
    if config.options.run_dir:
        return Path(config.options.run_dir)
    named = [config.ablation] if config.ablation else []
    named += [f"{kind}={c.name}" for kind, c in config.choices.items() if c.name != default_choices().get(kind)]
    named += [f"seed={config.options.seed}"]
    settings = {k: v for k, v in config.composed.items() if k not in NOT_THE_EXPERIMENT}
    folder = f"{','.join(named)}-{digest(settings, size=8)}"
    return Path(config.options.runs_dir) / (config.experiment or "default") / folder


def lay_out(folder: Path, config: RunConfig) -> None:
    """Make the folder with its config; links that another run has left in the same ``run_dir`` go."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("*/[1-5]-*", "evaluation/*/*"):
        for stale in folder.glob(pattern):
            stale.unlink()
    for name, content in (("config", dict(config.composed)), ("overrides", list(config.overrides))):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")


def link(at: Path, target: Path) -> None:
    """A relative link into the store; a new one replaces an old one."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary = at.with_name(f".{at.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, at.parent))
    os.replace(temporary, at)


def write_metrics(folder: Path, metrics: Iterable[Metric]) -> None:
    """``metrics.json``, whole or as it was."""
    temporary = folder / ".metrics.json.tmp"
    temporary.write_text(json.dumps([asdict(metric) for metric in metrics], indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "metrics.json")
