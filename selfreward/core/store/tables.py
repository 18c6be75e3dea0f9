"""Tables of a round read together, shard by shard: shard ``i`` of each belongs to shard ``i`` of the prompts."""

from __future__ import annotations

from collections.abc import Iterator

from selfreward.core.contracts.records import AnsweredPrompt, Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.core.store.artifacts import Artifact, R


def shards_of(artifact: Artifact, record: type[R]) -> Iterator[list[R]]:
    """The rows of a table, one shard at a time; of one that a thread is writing, as the shards come."""
    for index in artifact.indices():
        yield list(artifact.rows(record, index))


def answered_shards(prompts: Artifact, candidates: Artifact) -> Iterator[list[AnsweredPrompt]]:
    """Prompts with their candidates, one shard at a time. A prompt whose candidates were all dropped has none."""
    for asked, answers in zip(shards_of(prompts, Prompt), shards_of(candidates, Candidate), strict=True):
        groups: dict[str, list[Candidate]] = {prompt.prompt_id: [] for prompt in asked}
        for answer in answers:
            groups[answer.prompt_id].append(answer)
        yield [AnsweredPrompt(prompt, groups[prompt.prompt_id]) for prompt in asked]


def judged_shards(
    prompts: Artifact, candidates: Artifact | None, judgements: Artifact | None
) -> Iterator[list[JudgedPrompt]]:
    """Prompts with their candidates and judgements, where there are any, one shard at a time."""
    if candidates is None or judgements is None:
        yield from ([JudgedPrompt(prompt, [], []) for prompt in shard] for shard in shards_of(prompts, Prompt))
        return
    for groups, verdicts in zip(answered_shards(prompts, candidates), shards_of(judgements, Judgement), strict=True):
        of = {verdict.candidate_id: verdict for verdict in verdicts}
        yield [JudgedPrompt(g.prompt, g.candidates, [of[c.candidate_id] for c in g.candidates]) for g in groups]
