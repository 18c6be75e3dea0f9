"""Stage 4: the training set."""

from __future__ import annotations

from selfreward.core.contracts.records import JudgedPrompt, TrainingRow
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.run.context import Context
from selfreward.core.run.progress import Bar
from selfreward.core.run.resources import Resources
from selfreward.core.run.sieve import Sieve
from selfreward.core.run.stages.keyed import KeyedStage, expected
from selfreward.core.store.artifacts import Artifact
from selfreward.core.store.tables import judged_shards


class Select(KeyedStage):
    """The selector at work, prompt by prompt."""

    name = "training_set"

    def __init__(self, run: Resources, round: Round, choice: Choice) -> None:
        super().__init__(run, round, choice)
        self.unit = self.plugin.writes.UNIT

    def select(self, prompts: Artifact, candidates: Artifact | None, judgements: Artifact | None) -> Artifact:
        """The training rows; for an online optimizer, from the prompts alone."""
        filters = [self.run.identity.of(choice) for choice in self.round.pair_filters]
        source = {"judgements": judgements.key.hash} if judgements else {"prompts": prompts.key.hash}
        key = self.key(**source, filters=filters)

        def fill(artifact: Artifact, bar: Bar) -> None:
            sieve = Sieve(self.round.pair_filters, duplicates=True)
            judged = judged_shards(prompts, candidates, judgements)

            def work(shard: list[JudgedPrompt], context: Context) -> list[TrainingRow]:
                return self._work(shard, context, sieve)

            self.map_shards(artifact, self.plugin.writes, bar, judged, work, sieve)

        return self.make(key, expected(prompts), fill)

    def _work(self, shard: list[JudgedPrompt], context: Context, sieve: Sieve) -> list[TrainingRow]:
        rows: list[TrainingRow] = []
        for judged in shard:
            rows += self.drain(self.plugin.select(judged), [f"prompt {judged.prompt.prompt_id}"])
        kept, why = sieve.sift(rows)
        context.count(prompts=len(shard), **{f"dropped: {reason}": count for reason, count in why.items()})
        return kept
