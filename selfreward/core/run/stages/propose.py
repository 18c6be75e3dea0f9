"""Stage 1: prompts that are new, pass the filters, and belong to no held-out set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from selfreward.core.contracts.records import Prompt
from selfreward.core.errors import StageError
from selfreward.core.run.context import Context, drain_counters
from selfreward.core.run.plan import Cost
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.sieve import Sieve
from selfreward.core.run.stages.keyed import KeyedStage
from selfreward.core.store.artifacts import Artifact

NOT_DROPPED = ("tried", "parsed", "written", "valid", "seconds", "completions", "new_tokens")
"""Counters that do not say what became of a row."""


class Propose(KeyedStage):
    """The prompt generator at work, slice by slice, until enough prompts are kept."""

    name = "prompts"
    unit = "prompts"

    def propose(self) -> Artifact:
        filters = [self.run.identity.of(choice) for choice in self.round.prompt_filters]
        rows, wanted = self.plugin.expected(self.run.data, self.run.seed), self.choice.config.n
        return self.make(self.key(filters=filters), rows, lambda artifact, bar: self._fill(artifact, bar, wanted))

    def cost(self, rows: int) -> Cost:
        return Cost(rows, rows * self.plugin.sampling.max_new_tokens) if self.model else Cost(0, 0)

    def _fill(self, artifact: Artifact, bar: Bar, wanted: int | None) -> None:
        context = self.context()
        context.bar = bar
        writes_new = self.plugin.uses_model
        sieve = Sieve(self.round.prompt_filters, self.run.seed_prompts() if writes_new else ())
        sieve.forbid(self.run.held_out_prompts(), "held out")
        accepted: list[Prompt] = []
        for index in range(len(artifact.shards)):
            accepted += sieve.resume(artifact.rows(Prompt, index), artifact.shards[index].examples)
        tried = int(sum(shard.figures["tried"] for shard in artifact.shards))
        bar.settle(len(accepted))
        while wanted is None or len(accepted) < wanted:
            if wanted is not None and tried >= self.plugin.attempts * wanted:
                break
            rows = range(tried, tried + self._slice(wanted, len(accepted), tried))
            watch = Stopwatch()
            context.weight = 0 if wanted is None else min(len(rows), wanted - len(accepted))
            names = [f"row {row}" for row in rows]
            made = self.drain(self.plugin.propose(rows, accepted, context), names)
            kept, why = sieve.sift(prompt for prompt in made if prompt is not None)
            kept = kept[: None if wanted is None else wanted - len(accepted)]
            tried += len(made)
            figures = self._figures(made, why, context) | {"seconds": watch.seconds}
            self.write(artifact, Prompt, kept, figures, sieve)
            accepted += kept
            bar.settle(len(kept))
            if len(made) < len(rows):
                break
        if not accepted:
            raise StageError(
                f"{self.where} gave no prompt out of {tried} tried: {_outcomes(artifact)}; ways out: more room for a "
                "reply (prompt_generator.max_new_tokens=), or prompts from the data (prompt_generator=dataset)"
            )
        artifact.finish()

    def _slice(self, wanted: int | None, have: int, tried: int) -> int:
        """Rows to ask for next: a shard, or what is still missing at the yield so far."""
        if wanted is None:
            return self.run.options.shard_size
        yields = max(have / tried, 0.1) if tried else 1.0
        return max(1, min(self.run.options.shard_size, math.ceil((wanted - have) / yields * 1.05)))

    def _figures(self, made: Sequence[Prompt | None], why: Counter[str], context: Context) -> dict[str, float]:
        parsed = [prompt for prompt in made if prompt is not None]
        figures = {"tried": len(made), "parsed": len(parsed), **drain_counters(context)}
        if self.plugin.uses_model:
            figures["written"] = len(parsed)
            verdicts = [self.run.data.valid_prompt(prompt) for prompt in parsed]
            if any(v is not None for v in verdicts):
                figures["valid"] = sum(bool(v) for v in verdicts)
        return figures | {f"dropped: {reason}": count for reason, count in sorted(why.items())}


def _outcomes(artifact: Artifact) -> str:
    """What became of the rows, most frequent first."""
    total: Counter[str] = Counter()
    for shard in artifact.shards:
        total.update({k.removeprefix("dropped: "): int(v) for k, v in shard.figures.items() if k not in NOT_DROPPED})
    return ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in total.most_common() if count)
