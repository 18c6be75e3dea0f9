"""Stage 2: candidates for every prompt."""

from __future__ import annotations

from selfreward.core.contracts.records import Candidate, Prompt
from selfreward.core.errors import StageError
from selfreward.core.run.context import Context
from selfreward.core.run.plan import Cost
from selfreward.core.run.progress import Bar
from selfreward.core.run.sieve import Sieve
from selfreward.core.run.stages.keyed import KeyedStage, expected
from selfreward.core.run.stages.score import Score
from selfreward.core.store.artifacts import Artifact
from selfreward.core.store.tables import shards_of


class Sample(KeyedStage):
    """The sampler at work, shard by shard; the judge may follow while later shards are sampled."""

    name = "candidates"
    unit = "candidates"

    def sample(self, prompts: Artifact) -> Artifact | None:
        """The candidates; None where the optimizer samples while it trains."""
        if self.round.online:
            return None
        filters = [self.run.identity.of(choice) for choice in self.round.candidate_filters]
        key = self.key(prompts=prompts.key.hash, filters=filters)
        rows = expected(prompts, self.plugin.n) if self.run.options.dry_run else len(prompts)
        judge = Score(self.run, self.round, self.round.judge)
        # a foreign judge on the same engine, or one that runs two models, would move it to and fro between them
        apart = judge.room is not self.room
        same = judge.models == self.models
        aside = bool(self.models and judge.models) and (apart or same)
        return self.make(key, rows, lambda artifact, bar: self._fill(artifact, bar, prompts), aside)

    def cost(self, rows: int) -> Cost:
        return Cost(rows, rows * self.plugin.sampling.max_new_tokens) if self.model else Cost(0, 0)

    def _fill(self, artifact: Artifact, bar: Bar, prompts: Artifact) -> None:
        sieve = Sieve(self.round.candidate_filters, duplicates=True)

        def work(shard: list[Prompt], context: Context) -> list[Candidate]:
            rows = self.drain(self.plugin.sample(shard, context), [f"prompt {p.prompt_id}" for p in shard])
            self._check(shard, rows)
            kept, why = sieve.sift(rows)
            cut = sum(c.finish_reason == "length" for c in kept)
            context.count(cut_off=cut, characters=sum(len(c.text) for c in kept))
            context.count(**{f"dropped: {reason}": count for reason, count in why.items()})
            return kept

        self.map_shards(artifact, Candidate, bar, shards_of(prompts, Prompt), work, sieve)

    def _check(self, prompts: list[Prompt], rows: list[Candidate]) -> None:
        order = {prompt.prompt_id: index for index, prompt in enumerate(prompts)}
        places = [order.get(row.prompt_id, -1) for row in rows]
        if -1 in places or places != sorted(places):
            raise StageError(
                f"{self.where} must give the candidates of each prompt together, in the order of the prompts"
            )
        if len({row.candidate_id for row in rows}) < len(rows):
            raise StageError(f"{self.where} gave two candidates the same id; number them with k in Candidate.of")
