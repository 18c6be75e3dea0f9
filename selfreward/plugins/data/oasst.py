"""OpenAssistant conversations: first turns and the replies people ranked (:mod:`selfreward.formats.oasst`).

Messages that are deleted or in another language are left out, and so are replies without a rank and prompts that
nobody's ranked reply is left of. The paper's IFT set is the top-ranked replies to first turns (arXiv:2401.10020
§3.1.1), so a prompt whose best reply is not left is not in ``ift``. Source: arXiv:2304.07327.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward import option
from selfreward.formats import cells, files, oasst
from selfreward.formats.cells import BadRow
from selfreward.plugins.data.human_answers import Exchange, HumanData, HumanDataConfig
from selfreward.plugins.data.source import Source


@dataclass
class OasstConfig(HumanDataConfig):
    """Where the export is, and which part of it is for what."""

    WANTED: ClassVar[str] = "an OpenAssistant export, data.path=FILE.jsonl.gz"

    evaluation: float = option(0.3, ge=0)
    """Conversations held out for evaluation, chosen by their hash: a share if below 1, a number otherwise."""
    lang: str = "en"
    """Language of the messages that are used."""


class Oasst(HumanData):
    """First turns with human-ranked replies."""

    config: OasstConfig

    def missing(self, source: Source, first: dict[str, Any]) -> list[str]:
        try:
            oasst.turns(first)
        except BadRow:
            return ["no OpenAssistant export, by its first row; use data=table"]
        return []

    def exchanges(self, source: Source, refused: list[str]) -> list[Exchange]:
        used: list[oasst.Turn] = []
        parents: list[str | None] = []
        known: set[str | None] = {None}
        ranks: set[tuple[str | None, int | None]] = set()
        for place, turn in files.parsed(source.rows(refused), oasst.turns, refused):
            known.add(turn.identity)
            parents.append(turn.parent)
            if why := self._not_used(turn):
                self.leave_out(why)
            elif turn.is_ranked_reply and (turn.parent, turn.rank) in ranks:
                refused.append(f"{place}: another reply to the same message has rank {turn.rank}, too")
            else:
                used.append(turn)
                ranks |= {(turn.parent, turn.rank)} if turn.is_ranked_reply else set()
        self.leave_out("reply to a message that is not in the file", sum(parent not in known for parent in parents))
        return self._trees(used)

    def _trees(self, turns: list[oasst.Turn]) -> list[Exchange]:
        """One instruction can be two trees' root; their ranks say nothing of each other, so the first stands for it."""
        found: dict[str, Exchange] = {}
        for first, replies in oasst.ranked_replies(turns):
            answers = [(reply.rank, reply.text) for reply in replies if reply.rank is not None]
            if not answers:
                self.leave_out("first turn without a ranked reply")
            elif first.text in found:
                self.leave_out("first turn of an earlier tree")
            else:
                found[first.text] = Exchange(cells.asked(first.text), answers, compared=len(answers) > 1)
        return list(found.values())

    def _not_used(self, turn: oasst.Turn) -> str | None:
        if turn.deleted:
            return "deleted message"
        if turn.lang != self.config.lang:
            return f"message not in {self.config.lang}"
        return None if turn.text.strip() else "empty message"
