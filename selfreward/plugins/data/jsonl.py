"""Any file of prompts and responses: JSON Lines, one object a line, plain or gzipped.

A response is a text, or a list of texts ranked best first. Rows with the same prompt are answers to one prompt: their
ranks are in ``rank_column`` (any numbers, the lowest is best), or without it every response is as good as the others.
Rows that cannot be used are left out and listed in ``refused``, by file and line.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward import AnsweredPrompt, Data, Message, UserError, option
from selfreward.plugins.data.human_answers import answered, is_ranked, position
from selfreward.plugins.data.json_lines import first_object, objects, some_or_refuse

ROLES = ("system", "user", "assistant")


@dataclass
class JsonlConfig:
    """Where the rows are and how their columns are called."""

    path: str = ""
    """File of prompts and responses, ``.jsonl`` or ``.jsonl.gz``; required."""
    prompt_column: str = "prompt"
    """Key of the prompt: a text, or a list of ``{"role", "content"}`` messages that ends with the user's."""
    response_column: str = "response"
    """Key of the response: a text, or a list of texts ranked best first."""
    rank_column: str | None = None
    """Key of the response's rank among those to its prompt, lowest = best; None where there are no ranks."""
    eft_path: str | None = None
    """File of judge prompts and human-made verdicts, with the same columns (but no ranks)."""
    evaluation: float = option(0.1, ge=0)
    """Prompts held out for evaluation, chosen by their hash: a share if below 1, a number of prompts otherwise."""

    def problems(self) -> Iterator[str]:
        """A path that is not given, and columns that are one and the same."""
        if not self.path.strip():
            yield "path is not set; give a file of prompts and responses, data.path=FILE.jsonl"
        columns = [c for c in (self.prompt_column, self.response_column, self.rank_column) if c is not None]
        if len(set(columns)) < len(columns):
            yield f"prompt_column, response_column and rank_column must differ, got {', '.join(columns)}"


class BadRow(Exception):
    """Why a row cannot be used."""


class Jsonl(Data):
    """Prompts and responses of a file. The held-out part is the same for every seed."""

    def __init__(self, config: JsonlConfig) -> None:
        super().__init__(config)
        self.refused: list[str] = []
        """``file:line: why`` of the rows that were left out, once a split was read."""

    def files(self) -> list[Path]:
        """The one or two files that are set."""
        return [Path(path).expanduser() for path in (self.config.path, self.config.eft_path) if path]

    def problems(self) -> list[str]:
        """Files that are missing or whose first line cannot be read, and columns that it does not have."""
        missing = super().problems()
        if missing:
            return missing
        found = []
        for k, path in enumerate(self.files()):
            try:
                first = first_object(path)
            except UserError as problem:
                found += problem.problems
                continue
            found += [_no_column(path, c, first) for c in self._columns(with_rank=k == 0) if c not in first]
        return found

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """``ift`` and ``evaluation`` share the file's prompts; ``judge_evaluation`` is the ranked part of the latter.

        Raises:
            UserError: a file is missing, or not one of its rows can be used.
        """
        if name == "eft":
            return self._eft
        known = {"ift": self._ift, "evaluation": self._held_out, "judge_evaluation": self._judge_evaluation}
        return known[name]() if name in known else []

    def _ift(self) -> list[AnsweredPrompt]:
        return [group for group in self._answered("ift") if group.prompt.prompt_id not in self._held_out_ids]

    def _held_out(self, name: str = "evaluation") -> list[AnsweredPrompt]:
        return [group for group in self._answered(name) if group.prompt.prompt_id in self._held_out_ids]

    def _judge_evaluation(self) -> list[AnsweredPrompt]:
        return [group for group in self._held_out("judge_evaluation") if is_ranked(group)]

    def _answered(self, source: str) -> list[AnsweredPrompt]:
        return [answered(messages, answers, source) for messages, answers in self._groups]

    @cached_property
    def _held_out_ids(self) -> set[str]:
        ids = sorted((group.prompt.prompt_id for group in self._answered("evaluation")), key=position)
        held_out = self.config.evaluation
        return set(ids[: round(held_out)] if held_out >= 1 else [i for i in ids if position(i) < held_out])

    @cached_property
    def _groups(self) -> list[tuple[list[Message], list[tuple[int, str]]]]:
        return self._read(Path(self.config.path).expanduser(), with_rank=True)

    @cached_property
    def _eft(self) -> list[AnsweredPrompt]:
        if not self.config.eft_path:
            return []
        groups = self._read(Path(self.config.eft_path).expanduser(), with_rank=False)
        return [answered(messages, answers, "eft") for messages, answers in groups]

    def _read(self, path: Path, with_rank: bool) -> list[tuple[list[Message], list[tuple[int, str]]]]:
        """Every prompt of a file with its (rank, text) answers, in the order in which prompts first occur."""
        refused: list[str] = []
        groups: dict[str, tuple[list[Message], list[tuple[float, str]]]] = {}
        ranked_by_list: set[str] = set()
        for place, row in objects(path, refused):
            try:
                messages, answers, is_list = self._row(row, with_rank)
                key = json.dumps(messages)
                if key in ranked_by_list or (is_list and key in groups):
                    raise BadRow("the prompt occurs before; a ranked list must hold all of its responses")
            except BadRow as problem:
                refused.append(f"{place}: {problem}")
                continue
            ranked_by_list |= {key} if is_list else set()
            groups.setdefault(key, (messages, []))[1].extend(answers)
        some_or_refuse(path, len(groups), refused)
        self.refused += refused
        return [(messages, _from_zero(answers)) for messages, answers in groups.values()]

    def _columns(self, with_rank: bool) -> list[str]:
        config = self.config
        columns = [config.prompt_column, config.response_column]
        return [*columns, config.rank_column] if with_rank and config.rank_column else columns

    def _row(self, row: dict[str, Any], with_rank: bool) -> tuple[list[Message], list[tuple[float, str]], bool]:
        """A row's messages, its (rank, text) answers, and whether they came as a ranked list."""
        columns = self._columns(with_rank)
        for column in columns:
            if column not in row:
                raise BadRow(_no_column(None, column, row))
        messages = _messages(row[columns[0]], columns[0])
        response = row[columns[1]]
        if isinstance(response, list) and response:
            return messages, [(k, _text(text, columns[1])) for k, text in enumerate(response)], True
        rank = _number(row[columns[2]], columns[2]) if len(columns) > 2 else 0
        return messages, [(rank, _text(response, columns[1]))], False


def _from_zero(answers: list[tuple[float, str]]) -> list[tuple[int, str]]:
    """Ranks as 0, 1, 2, ...; equal ones stay equal."""
    order = sorted({rank for rank, _ in answers})
    return [(order.index(rank), text) for rank, text in answers]


def _no_column(path: Path | None, column: str, row: dict[str, Any]) -> str:
    close = difflib.get_close_matches(column, row, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(row) or 'none'}"
    return f"{f'data file {path}: ' if path else ''}no column '{column}'; {hint}"


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list):
        return [{"role": "user", "content": _text(value, column)}]
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise BadRow(f"'{column}' must be a text or a list of messages, each with a role ({', '.join(ROLES)})")
    if not value or value[-1]["role"] != "user":
        raise BadRow(f"'{column}' must end with a message of the user")
    return [{"role": turn["role"], "content": _text(turn.get("content"), column)} for turn in value]


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"'{column}' must be text, got {'null' if value is None else type(value).__name__}")
    if not value.strip():
        raise BadRow(f"'{column}' is empty")
    return value


def _number(value: Any, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"'{column}' must be a number, got {'null' if value is None else repr(value)}")
    return value
