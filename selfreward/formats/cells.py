"""Checks on the cells of a row. Files are untrusted: what is no text is never made into one.

Each gives what it names, or raises :class:`BadRow` with the column and what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant")

Conversation = list[dict[str, str]]
"""Messages, each ``{"role": one of ROLES, "content": text}``."""


class BadRow(Exception):
    """Why a row cannot be used."""


def cell(row: Mapping[str, Any], column: str) -> Any:
    """What a row has in a column."""
    if column not in row:
        raise BadRow(f"'{column}' is missing")
    return row[column]


def text(value: Any, column: str, may_be_empty: bool = False) -> str:
    """A cell that must be text: no null, boolean, number or list, and not empty where it may not be."""
    if not isinstance(value, str):
        raise BadRow(f"'{column}' must be text, got {'null' if value is None else type(value).__name__}")
    if not may_be_empty and not value.strip():
        raise BadRow(f"'{column}' is empty")
    return value


def text_of(row: Mapping[str, Any], column: str, may_be_empty: bool = False) -> str:
    """The text that a row has in a column."""
    return text(cell(row, column), column, may_be_empty)


def texts_of(row: Mapping[str, Any], column: str, may_be_empty: bool = False) -> list[str]:
    """The texts that a row has in a column, one at least; ``may_be_empty`` allows empty texts."""
    found = cell(row, column)
    if not isinstance(found, list) or not found:
        raise BadRow(f"'{column}' must be a list of texts that is not empty")
    return [text(each, column, may_be_empty) for each in found]


def number(value: Any, column: str) -> float:
    """A cell that must be a finite number; text only where a whole table is text (CSV), so read it before."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"'{column}' must be a number, got {'null' if value is None else repr(value)}")
    return value


def conversation(value: Any, column: str) -> Conversation:
    """A cell that must be a list of messages, each with a role and a text."""
    for turn in value if isinstance(value, list) else [value]:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise BadRow(f"'{column}' must be a text or a list of messages, each with a role ({', '.join(ROLES)})")
    return [{"role": turn["role"], "content": text(turn.get("content"), column)} for turn in value]


def prompt(value: Any, column: str) -> Conversation:
    """A cell that must be a prompt: a text, or messages that end with the user's."""
    if not isinstance(value, list):
        return asked(text(value, column))
    return ends_with("user", conversation(value, column), column)


def asked(content: str) -> Conversation:
    """A conversation of one message, the user's."""
    return [{"role": "user", "content": content}]


def ends_with(role: str, messages: Conversation, column: str) -> Conversation:
    """The messages, where the last of them has this role."""
    if not messages or messages[-1]["role"] != role:
        raise BadRow(f"'{column}' must end with a message of the {role}")
    return messages


def below(instruction: str, given: str) -> str:
    """An instruction and, a blank line below it, its input where there is one: how Self-Instruct's kin are asked."""
    return "\n\n".join(part.strip() for part in (instruction, given) if part.strip())
