"""Stage 3: a judgement for every candidate."""

from __future__ import annotations

from collections.abc import Iterable

from selfreward.core.contracts.records import AnsweredPrompt, Judgement
from selfreward.core.run.context import Context
from selfreward.core.run.engines import EngineRoom
from selfreward.core.run.judgements import check_judgements
from selfreward.core.run.plan import Cost
from selfreward.core.run.progress import Bar
from selfreward.core.run.stages.keyed import KeyedStage, expected
from selfreward.core.store.artifacts import Artifact
from selfreward.core.store.tables import answered_shards


class Score(KeyedStage):
    """The judge at work, shard by shard, as the candidates come."""

    name = "judgements"
    unit = "candidates"

    @property
    def room(self) -> EngineRoom:
        """The loop's judge may have an engine of its own."""
        return self.run.engines.judging(self.round)

    def score(self, prompts: Artifact, candidates: Artifact | None) -> Artifact | None:
        """The judgements; None where the optimizer has its own answers judged while it trains."""
        if candidates is None:
            return None
        key = self.key(candidates=candidates.key.hash)

        def fill(artifact: Artifact, bar: Bar) -> None:
            self.map_shards(artifact, Judgement, bar, answered_shards(prompts, candidates), self._work)

        rows = len(prompts) * self.round.sampler.build().n if candidates.aside else expected(candidates)
        judgements = self.make(key, rows, fill)
        if candidates.aside:  # the judgements were there already
            candidates.aside.join()
        return judgements

    def cost(self, rows: int) -> Cost:
        asked = self.plugin.asks() if self.model else None
        return Cost(rows * asked.replies, rows * asked.replies * asked.tokens) if asked else super().cost(rows)

    def _work(self, shard: list[AnsweredPrompt], context: Context) -> list[Judgement]:
        names = [f"candidate {c.candidate_id}" for group in shard for c in group.candidates]
        rows = self.drain(self.plugin.score(shard, context), names)
        check_judgements(self.where, rows, shard)
        count_verdicts(rows, context)
        return rows


def count_verdicts(rows: Iterable[Judgement], context: Context) -> None:
    """Count votes, unreadable votes, and candidates left without a score."""
    context.count(votes=0, unreadable=0, unscored=0)
    for row in rows:
        unreadable = sum(vote is None for vote in row.votes)
        context.count(votes=len(row.votes), unreadable=unreadable, unscored=row.score is None)
