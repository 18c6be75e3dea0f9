"""Rows as token ids, and those of them that fit.

Trainers are handed ids, so that text which looks like a control token stays text, and sampled answers are trained on
exactly as they were sampled. A row that does not fit is dropped whole and counted, never cut in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from selfreward import Chat, Demonstration, Message, ModelRef, Preference, StageError
from selfreward.plugins.optimizers.training.loading import context_length

Row = dict[str, Any]
"""Columns of a training row: token ids; ``length``, the tokens of its longest sequence; ``prompt_id``."""


def answer_ids(chat: Chat, token_ids: Sequence[int], messages: Sequence[Message]) -> list[int]:
    """The tokens of an answer: those that were sampled, else the text with its end-of-turn token."""
    return list(token_ids) or chat.encode_reply(messages[-1]["content"])


def demonstration_rows(demonstrations: Iterable[Demonstration], chat: Chat) -> Iterator[Row]:
    """Demonstrations as ``input_ids`` and ``labels``; prompt tokens carry no loss."""
    for row in demonstrations:
        prompt, answer = chat.encode(row.prompt), answer_ids(chat, row.token_ids, row.completion)
        labels = [-100] * len(prompt) + answer
        yield {"input_ids": prompt + answer, "labels": labels, "length": len(labels), "prompt_id": row.prompt_id}


def pair_rows(pairs: Iterable[Preference], chat: Chat) -> Iterator[Row]:
    """Pairs as ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``, numbered.

    Raises:
        StageError: the two answers of a pair are the same.
    """
    for number, row in enumerate(pairs):
        prompt = chat.encode(row.prompt)
        chosen = answer_ids(chat, row.chosen_token_ids, row.chosen)
        rejected = answer_ids(chat, row.rejected_token_ids, row.rejected)
        if chosen == rejected:
            raise StageError(
                f"prompt {row.prompt_id}: the chosen answer {row.chosen_id} and the rejected answer {row.rejected_id} "
                "are the same tokens, so there is nothing to prefer; the selector must not write such a pair"
            )
        length = len(prompt) + max(len(chosen), len(rejected))
        ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        yield {**ids, "length": length, "number": number, "prompt_id": row.prompt_id}


def fitting(
    rows: Iterable[Row], max_length: int, start: ModelRef, what: str = "training rows"
) -> tuple[list[Row], int]:
    """The rows that fit into the model's context and ``max_length``, and the number of those that do not.

    Raises:
        StageError: no row fits.
    """
    context = context_length(start) or max_length
    limit, given = min(max_length, context), list(rows)
    kept = [row for row in given if row["length"] <= limit]
    if not kept:
        raise StageError(
            f"none of the {len(given)} {what} fits into {limit} tokens, the smaller of optimizer.max_length="
            f"{max_length} and the model's context of {context}; raise optimizer.max_length, or drop long rows"
        )
    return kept, len(given) - len(kept)
