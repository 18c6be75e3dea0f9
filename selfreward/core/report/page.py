"""The run's report: ``report.html``, one file that opens from disk and asks nobody for anything.

Candidates, prompts and rationales are untrusted text that may hold markup and control characters. Three walls stand
before it: Jinja escapes everything, rows travel as JSON whose ``<`` is escaped and reach the page as text nodes, and
the Content-Security-Policy names the page's own style and script by their hashes, so that nothing else would run.
Memory holds one shard and the sampled rows. The same run folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from selfreward.core.report.figures import figure_groups
from selfreward.core.report.plots import plots
from selfreward.core.report.run_command import command
from selfreward.core.report.run_folder import RunFolder, read_run
from selfreward.core.report.sample import sample
from selfreward.core.report.visible import visible

PROMPTS = 40
"""Prompts shown of each round, unless told otherwise."""


def build_report(run_folder: Path, prompts: int = PROMPTS, error: str = "") -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    Args:
        run_folder: a run's folder, finished or not.
        prompts: size of the sample of each round's prompts.
        error: why the run failed; shown at the top.

    Raises:
        UserError: it is not the folder of a run.
        StageError: an artifact of the run cannot be read.
    """
    run = read_run(run_folder)
    path = run.folder / "report.html"
    temporary = path.with_name(".report.html.tmp")
    temporary.write_text(_page(run, prompts, error), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    return path


def _page(run: RunFolder, prompts: int, error: str) -> str:
    import jinja2

    from selfreward import __version__

    package = files("selfreward.core.report")
    style, script = ((package / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string((package / "report.html.jinja").read_text(encoding="utf-8"))
    return page.render(
        **_facts(run, error),
        policy=f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'",
        style=jinja2.utils.markupsafe.Markup(style),
        script=jinja2.utils.markupsafe.Markup(script),
        plots=[asdict(plot) | {"svg": jinja2.utils.markupsafe.Markup(plot.svg)} for plot in plots(run)],
        rows=sample(run, prompts),
        prompts=prompts,
        version=__version__,
    )


def _facts(run: RunFolder, error: str) -> dict[str, Any]:
    """What the page says about the run, all of it made visible."""
    import yaml

    facts = {
        "name": run.folder.resolve().name,
        "error": error,
        "unfinished": "" if error else run.unfinished,
        "seed": run.seed,
        "choices": run.choices,
        "command": command(run),
        "models": run.models,
        "headline": _headline(run),
        "groups": figure_groups(run),
        "rounds": [round.row for round in run.rounds],
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    }
    return visible(facts)


def _headline(run: RunFolder) -> str:
    """The first and the last model's true score, where there is a ground truth."""
    known = [(m["model"], m["value"]) for m in run.metrics if m["metric"] == "true_score" and m["value"] is not None]
    if len(known) < 2:
        return ""
    (first, before), (last, after) = known[0], known[-1]
    return f"True score {before:.2f} → {after:.2f} from {first} to {last}"


def _source(text: str) -> str:
    """The CSP source that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
