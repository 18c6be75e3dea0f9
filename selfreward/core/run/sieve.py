"""Filters and exact duplicates as one ordered fold over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfreward.core.contracts.records import Prompt
from selfreward.core.contracts.rounds import Choice

EXAMPLES = 3
"""Dropped rows that are shown for each reason: the first ones."""
LONGEST = 120
"""Characters that are shown of one."""


class Sieve:
    """Keeps the rows that no filter has a reason against; prompts also have to be new.

    A fold: what was kept before decides on what comes after, so rows must come in order and a resumed run replays what
    it had kept (:meth:`resume`).
    """

    def __init__(self, filters: Sequence[Choice], existing: Sequence[Prompt] = (), duplicates: bool = False) -> None:
        self._filters = [choice.build() for choice in filters]
        self._duplicates_allowed = duplicates
        self._seen = {prompt.prompt_id: "duplicate" for prompt in existing}
        self._shown = Counter[str]()
        self._examples: dict[str, list[str]] = {}
        for each in self._filters:
            each.begin(existing)

    def forbid(self, prompts: Iterable[Prompt], reason: str) -> None:
        """Drop these exact prompts, for this reason; the filters are told what is held out."""
        forbidden = list(prompts)
        self._seen |= {prompt.prompt_id: reason for prompt in forbidden}
        for each in self._filters:
            each.held_out(forbidden)

    def sift(self, rows: Iterable[Any]) -> tuple[list[Any], Counter[str]]:
        """The rows that are kept, and how many were dropped for each reason."""
        kept, why = [], Counter[str]()
        for row in rows:
            reason = self._reason(row)
            if reason:
                why[reason] += 1
                self._show(reason, row)
            else:
                self._keep(row)
                kept.append(row)
        return kept, why

    def resume(self, rows: Iterable[Any], examples: Mapping[str, Sequence[str]] | None = None) -> list[Any]:
        """Take note of rows that were kept before, and of the examples that were taken then."""
        taken = list(rows)
        for row in taken:
            self._keep(row)
        self._shown.update({reason: len(texts) for reason, texts in (examples or {}).items()})
        return taken

    def take_examples(self) -> dict[str, list[str]]:
        """Texts of the first :data:`EXAMPLES` rows dropped for each reason, less those that were taken before."""
        taken, self._examples = self._examples, {}
        return taken

    def _show(self, reason: str, row: Any) -> None:
        if self._shown[reason] < EXAMPLES:
            self._shown[reason] += 1
            self._examples.setdefault(reason, []).append(excerpt(row))

    def _reason(self, row: Any) -> str | None:
        if not self._duplicates_allowed and row.prompt_id in self._seen:
            return self._seen[row.prompt_id]
        return next((reason for each in self._filters if (reason := each.reason(row))), None)

    def _keep(self, row: Any) -> None:
        if not self._duplicates_allowed:
            self._seen[row.prompt_id] = "duplicate"
        for each in self._filters:
            each.kept(row)


def excerpt(row: Any) -> str:
    """The beginning of a prompt or an answer on one line; of a training row, of its prompt."""
    text = " ".join((row.text if hasattr(row, "text") else row.prompt[-1]["content"]).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
