"""Self-Instruct's tasks: an instruction and instances of it, each an input and the output a person wrote.

The prompt is the instruction and, where there is one, the input below it. Reads ``seed_tasks.jsonl`` (175 tasks) and,
as ``data.evaluation_path``, ``user_oriented_instructions.jsonl`` (252). All instances of a task are one conversation;
there are no ranks, hence no ``ranked`` and no ``judge_evaluation``.
Source: arXiv:2212.10560 §2.2 and §4.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward.formats.cells import BadRow, asked, below, text
from selfreward.plugins.data.human_answers import Exchange, HumanDataConfig, RowByRow


@dataclass
class SelfInstructDataConfig(HumanDataConfig):
    """Where the tasks are, and which part of them is for what."""

    WANTED: ClassVar[str] = "a file of tasks, data.path=seed_tasks.jsonl"


class SelfInstructData(RowByRow):
    """Instructions, each instance a prompt with one answer."""

    columns = ("instruction", "instances")
    config: SelfInstructDataConfig

    def exchange(self, row: dict[str, Any]) -> Iterator[Exchange]:
        """One exchange per instance."""
        instruction = text(row.get("instruction"), "instruction").strip()
        instances = row.get("instances")
        if not isinstance(instances, list) or not instances or not all(isinstance(i, dict) for i in instances):
            raise BadRow("'instances' must be a list of objects with input and output")
        parts = [(text(i.get("input"), "input", may_be_empty=True), text(i.get("output"), "output")) for i in instances]
        for given, output in parts:
            yield Exchange(asked(below(instruction, given)), [(0, output)], topic=instruction)
