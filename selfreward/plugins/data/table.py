"""Any table of prompts and answers, by its columns.

- instructions: prompt, response; a response is a text, or a list of texts ranked best first;
- ranked answers: prompt, response, rank, one row an answer; the lowest rank is best, equal ones tie;
- preferences: prompt, chosen, rejected, where the table has no response; or chosen and rejected as whole conversations;
- conversations: messages, where the table has no prompt; the last message is the response to those before it;
- prompts alone: ``data.response_column=null``.

A prompt or response is a text or, as TRL has it, a list of ``{"role", "content"}`` messages. Rows with one prompt are
answers to one prompt, except preferences, which are comparisons each by itself.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from selfreward import AnsweredPrompt, Message
from selfreward.formats.cells import BadRow, conversation, ends_with, number, prompt, text
from selfreward.formats.json_rows import Row
from selfreward.plugins.data.human_answers import Exchange, HumanData, HumanDataConfig, answered
from selfreward.plugins.data.source import Source


@dataclass
class TableConfig(HumanDataConfig):
    """Where the rows are, how their columns are called, and which part of them is for what."""

    WANTED: ClassVar[str] = "a file of prompts and responses, data.path=FILE.jsonl"

    prompt_column: str = "prompt"
    """Column of the prompt: a text, or a list of messages that ends with the user's."""
    response_column: str | None = "response"
    """Column of the response: a text, a list of texts ranked best first, or a message; None where there is none."""
    rank_column: str | None = None
    """Column of the response's rank among those to its prompt, lowest = best; None where there are no ranks."""
    chosen_column: str = "chosen"
    """Column of the better answer of a pair, read where the table has no response."""
    rejected_column: str = "rejected"
    """Column of the worse answer of a pair."""
    messages_column: str = "messages"
    """Column of a whole conversation, read where the table has no prompt."""
    eft_path: str | None = None
    """Table of judge prompts and human-made verdicts, with the same columns (but no ranks)."""

    def problems(self) -> Iterator[str]:
        """Also columns that are one and the same."""
        yield from super().problems()
        columns = [getattr(self, name) for name in vars(self) if name.endswith("_column")]
        named = [column for column in columns if column is not None]
        if twice := sorted({column for column in named if named.count(column) > 1}):
            yield f"two columns are called {twice[0]}; the columns must differ"
        if self.eft_path and self.response_column is None:
            yield "eft_path needs response_column, the column of the verdicts"


class Table(HumanData):
    """The rows of a table."""

    config: TableConfig

    def sources(self) -> list[Source]:
        return [*super().sources(), *([self.source(self.config.eft_path)] if self.config.eft_path else [])]

    def missing(self, source: Source, first: Row) -> list[str]:
        """Columns that the table's form has and its first row has not."""
        wanted = self._form(first, self._is_ranked(source))[1]
        named = [(getattr(self.config, option), option) for option in wanted]
        return [_no_column(column, first, option) for column, option in named if column not in first]

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """Also ``eft``: the verdicts of ``eft_path``."""
        return self._eft if name == "eft" else super().split(name, seed)

    @cached_property
    def _eft(self) -> list[AnsweredPrompt]:
        return answered(self.clean(self.read(self.config.eft_path)), "eft") if self.config.eft_path else []

    def exchanges(self, source: Source, refused: list[str]) -> list[Exchange]:
        """Every comparison, or every prompt with its answers, in the order in which they first occur."""
        groups: dict[str, _Group] = {}
        rank_column = self.config.rank_column if source.is_all_text else None
        read = None
        for place, row in source.rows(refused):
            read = read or self._form(row, self._is_ranked(source))[0]
            try:
                group = read(_with_number(row, rank_column))
                key = str(len(groups)) if group.stands_alone else json.dumps(group.messages)
                if key in groups:
                    groups[key].add(group)
                else:
                    groups[key] = group
            except BadRow as problem:
                refused.append(f"{place}: {problem}")
        return [group.exchange() for group in groups.values()]

    def _is_ranked(self, source: Source) -> bool:
        return self.config.rank_column is not None and source.path != self.config.eft_path

    def _form(self, first: Row, is_ranked: bool) -> tuple[Callable[[Row], _Group], list[str]]:
        """How a table with such a first row is read, and the options that name the columns it must have."""
        columns = self.config
        if columns.response_column is None:
            return self._prompt, ["prompt_column"]
        if columns.response_column not in first:
            if columns.chosen_column in first or columns.rejected_column in first:
                is_whole = isinstance(first.get(columns.chosen_column), list) and columns.prompt_column not in first
                options = ["chosen_column", "rejected_column"]
                return self._preference, options if is_whole else ["prompt_column", *options]
            if columns.messages_column in first and columns.prompt_column not in first:
                return self._conversation, ["messages_column"]
        if is_ranked:
            return self._ranked, ["prompt_column", "response_column", "rank_column"]
        return self._response, ["prompt_column", "response_column"]

    def _cell(self, row: Row, option: str) -> tuple[Any, str]:
        column = getattr(self.config, option)
        if column not in row:
            raise BadRow(_no_column(column, row))
        return row[column], column

    def _prompt(self, row: Row) -> _Group:
        return _Group(prompt(*self._cell(row, "prompt_column")), [])

    def _response(self, row: Row) -> _Group:
        messages = prompt(*self._cell(row, "prompt_column"))
        value, column = self._cell(row, "response_column")
        if isinstance(value, list) and value and not isinstance(value[0], dict):
            return _Group(messages, [(k, text(each, column)) for k, each in enumerate(value)], is_list=True)
        before, reply = _reply(value, column)
        if before:
            raise BadRow(f"'{column}' must be one message of the assistant, got {len(before) + 1} messages")
        return _Group(messages, [(0, reply)])

    def _ranked(self, row: Row) -> _Group:
        group = self._response(row)
        if not group.is_list:
            rank = number(*self._cell(row, "rank_column"))
            group = _Group(group.messages, [(rank, group.answers[0][1])], is_ranked=True)
        return group

    def _preference(self, row: Row) -> _Group:
        before, best = _reply(*self._cell(row, "chosen_column"))
        before_worst, worst = _reply(*self._cell(row, "rejected_column"))
        named = f"'{self.config.chosen_column}' and '{self.config.rejected_column}'"
        if before != before_worst:
            raise BadRow(f"{named} differ before the last message")
        if best == worst:
            raise BadRow(f"{named} are the same")
        cell = (before, self.config.chosen_column) if before else self._cell(row, "prompt_column")
        return _Group(prompt(*cell), [(0, best), (1, worst)], is_ranked=True, stands_alone=True)

    def _conversation(self, row: Row) -> _Group:
        value, column = self._cell(row, "messages_column")
        messages = ends_with("assistant", conversation(value, column), column)
        return _Group(prompt(messages[:-1], column), [(0, messages[-1]["content"])])


@dataclass
class _Group:
    """A prompt and its answers so far."""

    messages: list[Message]
    answers: list[tuple[float, str]]
    is_list: bool = False
    is_ranked: bool = False
    stands_alone: bool = False

    def add(self, other: _Group) -> None:
        """More answers to the prompt.

        Raises:
            BadRow: a ranking would contradict itself.
        """
        if self.is_list or other.is_list:
            raise BadRow("the prompt occurs before; a ranked list must hold all of its responses")
        if other.is_ranked and any(known == new for _, known in self.answers for _, new in other.answers):
            raise BadRow("the same response to this prompt was ranked before")
        self.answers += other.answers

    def exchange(self) -> Exchange:
        """With ranks 0, 1, 2, ...; equal ones stay equal."""
        order = {rank: k for k, rank in enumerate(sorted({rank for rank, _ in self.answers}))}
        compared = (self.is_list or self.is_ranked) and len(self.answers) > 1
        return Exchange(self.messages, [(order[rank], text) for rank, text in self.answers], compared)


def _reply(value: Any, column: str) -> tuple[list[Message], str]:
    """A text, or the last message of a conversation and those before it."""
    if not isinstance(value, list):
        return [], text(value, column)
    messages = ends_with("assistant", conversation(value, column), column)
    return messages[:-1], messages[-1]["content"]


def _with_number(row: Row, column: str | None) -> Row:
    """The row of a table in which everything is text, with this column as a number where it reads as one."""
    if column is None or column not in row:
        return row
    try:
        return row | {column: float(row[column])}
    except ValueError:
        return row


def _no_column(column: str, there: Iterable[str], option: str | None = None) -> str:
    """That a column is missing, which there are, and the option that names another."""
    names = list(there)
    close = difflib.get_close_matches(column, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names) or 'none'}"
    mend = f"; set data.{option}={close[0] if close else 'NAME'}" if option else ""
    return f"no column '{column}'; {hint}{mend}"
