"""The contract of a benchmark: a small table, a JSON file of figures, exit code 1 when a goal is missed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured figure and its goal; ``better`` is ``higher`` or ``lower``."""

    name: str
    value: float
    goal: float
    better: str

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


def arguments(description: str) -> argparse.Namespace:
    """``--quick`` and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="stay under a minute: smaller, less exact")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    return parser.parse_args()


def report(figures: Sequence[Figure], to: Path | None) -> int:
    """Print the table, write the JSON, and return the exit code."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        goal = f"goal {'≥' if figure.better == 'higher' else '≤'} {figure.goal:g}"
        print(f"{figure.name:<{width}}  {figure.value:8.3f}  {goal}  {'ok' if figure.met else 'MISSED'}")
    if to:
        to.write_text(
            json.dumps({"figures": [asdict(figure) for figure in figures]}, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if all(figure.met for figure in figures) else 1
