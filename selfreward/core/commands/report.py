"""``selfreward report RUN ...``: write the reports of runs and print where they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from selfreward.core.report.page import PROMPTS, build_report


def report(arguments: Sequence[str]) -> None:
    """Write ``report.html`` into each run's folder.

    Raises:
        UserError: not the folder of a run.
    """
    parser = argparse.ArgumentParser(prog="selfreward report", description="Write report.html into runs' folders.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, finished or not")
    parser.add_argument(
        "--prompts", type=int, default=PROMPTS, help=f"prompts shown of each round (default: {PROMPTS})"
    )
    given = parser.parse_args(list(arguments))
    for folder in given.runs:
        print(build_report(folder, max(0, given.prompts)))
