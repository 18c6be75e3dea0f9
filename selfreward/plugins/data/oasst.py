"""OpenAssistant conversations (arXiv:2304.07327): first turns and the replies people ranked.

Reads the export as it is published, one message a line (``oasst1_en-validation.jsonl.gz``), or one nested tree a line.
A first turn is a message without parent; its replies carry ``rank``, 0 = best. Messages that are deleted or in another
language are left out, and so are replies without a rank and prompts that nobody's ranked reply is left of. The paper's
IFT set is the top-ranked replies to first turns (arXiv:2401.10020 §3.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward import AnsweredPrompt, Data, UserError, option
from selfreward.plugins.data.human_answers import answered, is_ranked, position
from selfreward.plugins.data.json_lines import first_object, objects, some_or_refuse


@dataclass
class OasstConfig:
    """Where the export is and how much of it is held out."""

    path: str = ""
    """The export, ``.jsonl`` or ``.jsonl.gz``; required."""
    holdout: float = option(0.3, ge=0, lt=1)
    """Share of the prompts that is held out for evaluation, chosen by their hash."""
    lang: str = "en"
    """Language of the messages that are used."""

    def problems(self) -> Iterator[str]:
        """A path that is not given."""
        if not self.path.strip():
            yield "path is not set; give an OpenAssistant export, data.path=FILE.jsonl.gz"


class Oasst(Data):
    """First turns with human-ranked replies. The held-out part is the same for every seed."""

    def __init__(self, config: OasstConfig) -> None:
        super().__init__(config)
        self.refused: list[str] = []
        """``file:line: why`` of the lines that were left out because they hold no message, once a split was read."""

    def files(self) -> list[Path]:
        """The export."""
        return [Path(self.config.path).expanduser()] if self.config.path else []

    def problems(self) -> list[str]:
        """A file that is missing, or whose first line is neither a message nor a tree."""
        missing = super().problems()
        if missing:
            return missing
        try:
            strange = [path for path in self.files() if not _messages(first_object(path))]
        except UserError as problem:
            return problem.problems
        return [f"data file {path}: no OpenAssistant export, by its first line; use data=jsonl" for path in strange]

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """``ift``: the prompts that are not held out and whose best reply is left; the replies are ordered by rank.

        ``evaluation`` is the held-out prompts, ``judge_evaluation`` those with at least two ranked replies; there is no
        ``eft``.

        Raises:
            UserError: the file is missing, or holds no first turn with a ranked reply.
        """
        if name not in ("ift", "evaluation", "judge_evaluation"):
            return []
        groups = [answered(text, replies, name) for text, replies in self._ranked]
        is_held_out = [position(group.prompt.prompt_id) < self.config.holdout for group in groups]
        if name == "ift":
            return [g for g, out in zip(groups, is_held_out, strict=True) if not out and g.candidates[0].rank == 0]
        return [g for g, out in zip(groups, is_held_out, strict=True) if out and (name == "evaluation" or is_ranked(g))]

    @cached_property
    def _ranked(self) -> list[tuple[str, list[tuple[int, str]]]]:
        """Every first turn with its (rank, text) replies, in the order of the file."""
        path = Path(self.config.path).expanduser()
        refused: list[str] = []
        first_turns: dict[str, str] = {}
        replies: dict[str, list[tuple[int, str]]] = {}
        for place, found in objects(path, refused):
            messages = _messages(found)
            if not messages:
                refused.append(f"{place}: neither a message nor a tree")
            for message in filter(self._is_used, messages):
                parent = message.get("parent_id")
                if parent is None and message["role"] == "prompter":
                    first_turns[message["message_id"]] = message["text"]
                elif message["role"] == "assistant" and parent is not None and _is_rank(message.get("rank")):
                    replies.setdefault(parent, []).append((message["rank"], message["text"]))
        # one instruction can be two trees' root; their ranks say nothing of each other, so the first tree stands for it
        by_text: dict[str, list[tuple[int, str]]] = {}
        for key, text in first_turns.items():
            if key in replies:
                by_text.setdefault(text, replies[key])
        some_or_refuse(path, len(by_text), refused)
        self.refused += refused
        return list(by_text.items())

    def _is_used(self, message: dict[str, Any]) -> bool:
        is_kept = not message.get("deleted") and message.get("lang") == self.config.lang
        return is_kept and bool(message["text"].strip())


def _messages(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The message of a line, or the first turn of a tree and the replies to it; none where a line is neither."""
    root = found.get("prompt")
    if not isinstance(root, dict):
        return [found] if _is_message(found) else []
    below = root["replies"] if isinstance(root.get("replies"), list) else []
    messages = [{**root, "parent_id": None}]
    messages += [{**reply, "parent_id": root.get("message_id")} for reply in below if isinstance(reply, dict)]
    return messages if all(map(_is_message, messages)) else []


def _is_message(found: dict[str, Any]) -> bool:
    needed = all(isinstance(found.get(key), str) for key in ("message_id", "role", "text"))
    return needed and isinstance(found.get("parent_id", ""), str | None)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
