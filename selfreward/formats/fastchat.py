"""FastChat's files: questions, reference answers, and models' answers.

One JSON object a line: ``question_id``, ``category``, ``turns`` (questions); ``question_id``, ``choices[0].turns``
(answers, of references and of models). Source: data/mt_bench and data/vicuna_bench of FastChat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfreward.formats import files
from selfreward.formats.cells import BadRow, Conversation, cell, text_of, texts_of
from selfreward.formats.json_rows import Row

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""Sampling temperature of a category's answers; 0.7 for any other."""


@dataclass(frozen=True)
class Question:
    """One row of a question file."""

    id: int | str
    category: str
    turns: list[str]
    references: Sequence[str] = ()
    """A good answer to each turn, where there is one."""

    @classmethod
    def of(cls, row: Row) -> Question:
        """``question_id``, ``category`` and ``turns`` of a row."""
        return cls(_id(row), text_of(row, "category"), texts_of(row, "turns"))

    @property
    def temperature(self) -> float:
        """FastChat's sampling temperature for answers to it."""
        return TEMPERATURES.get(self.category, 0.7)


def read_questions(path: Path, references: Path | None, per_category: int | None) -> tuple[list[Question], list[str]]:
    """The questions with their references, and ``place: why`` for every row that was left out.

    Raises:
        UserError: a file does not open, or has no usable row.
    """
    questions, left_out = files.read(path, Question.of)
    known: dict[int | str, list[str]] = {}
    if references:
        rows, more = files.read(references, _answer)
        known, left_out = dict(rows), left_out + more
    seen: dict[str, int] = {}
    kept = []
    for question in questions:
        seen[question.category] = seen.get(question.category, 0) + 1
        if seen[question.category] <= (per_category or math.inf):
            kept.append(replace(question, references=known.get(question.id, ())))
    return kept, left_out


def read_answers(path: Path) -> tuple[dict[int | str, list[str]], list[str]]:
    """A model's answers by question, one a turn, and ``place: why`` for every row that was left out.

    Raises:
        UserError: the file does not open, or has no usable row.
    """
    rows, left_out = files.read(path, _answer)
    return dict(rows), left_out


def write_answers(
    path: Path, questions: Sequence[Question], answers: Mapping[int | str, Conversation], model: str
) -> None:
    """A model's answers in the same layout."""
    said = {question.id: [turn["content"] for turn in answers[question.id][1::2]] for question in questions}
    choices = {key: [{"index": 0, "turns": turns}] for key, turns in said.items()}
    write_rows(path, ({"question_id": key, "model_id": model, "choices": of_it} for key, of_it in choices.items()))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """JSON Lines."""
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def _id(row: Row) -> int | str:
    found = cell(row, "question_id")
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise BadRow(f"'question_id' must be a number or a text, got {found!r}")
    return found


def _answer(row: Row) -> tuple[int | str, list[str]]:
    """A row of FastChat's answer files: the question's id and the answer to each turn."""
    choices = cell(row, "choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadRow("'choices' must be a list with an object that has 'turns'")
    return _id(row), texts_of(choices[0], "turns", may_be_empty=True)
