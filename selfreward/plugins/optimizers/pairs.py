"""Pairs of answers as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from selfreward import Chat, Preference, StageError
from selfreward.plugins.optimizers.trl_trainer import answer_ids


def pair_rows(pairs: Iterable[Preference], chat: Chat) -> Iterator[dict[str, Any]]:
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
