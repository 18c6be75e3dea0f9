"""Filters and exact duplicates as one ordered fold over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from selfreward.core.records import Prompt
from selfreward.core.rounds import Choice


class Sieve:
    """Keeps the rows that no filter has a reason against; prompts also have to be new.

    A fold: what was kept before decides on what comes after, so rows must come in order and a resumed run replays what
    it had kept (:meth:`resume`).
    """

    def __init__(self, filters: Sequence[Choice], existing: Sequence[Prompt] = (), duplicates: bool = False) -> None:
        self._filters = [choice.build() for choice in filters]
        self._duplicates_allowed = duplicates
        self._seen = {prompt.prompt_id: "duplicate" for prompt in existing}
        for each in self._filters:
            each.begin(existing)

    def forbid(self, prompts: Iterable[Prompt], reason: str) -> None:
        """Drop these exact prompts, for this reason."""
        self._seen |= {prompt.prompt_id: reason for prompt in prompts}

    def sift(self, rows: Iterable[Any]) -> tuple[list[Any], Counter[str]]:
        """The rows that are kept, and how many were dropped for each reason."""
        kept, why = [], Counter[str]()
        for row in rows:
            reason = self._reason(row)
            if reason:
                why[reason] += 1
            else:
                self._keep(row)
                kept.append(row)
        return kept, why

    def resume(self, rows: Iterable[Any]) -> list[Any]:
        """Take note of rows that were kept before."""
        taken = list(rows)
        for row in taken:
            self._keep(row)
        return taken

    def _reason(self, row: Any) -> str | None:
        if not self._duplicates_allowed and row.prompt_id in self._seen:
            return self._seen[row.prompt_id]
        return next((reason for each in self._filters if (reason := each.reason(row))), None)

    def _keep(self, row: Any) -> None:
        if not self._duplicates_allowed:
            self._seen[row.prompt_id] = "duplicate"
        for each in self._filters:
            each.kept(row)
