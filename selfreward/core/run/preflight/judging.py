"""Whether a judge can be asked: by this rubric, about these prompts, within this context, on this engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.contracts.stages import Asking, Judge, TextMetric
from selfreward.core.run.run import Run
from selfreward.core.text.chat import Chat
from selfreward.core.text.rubric import Rubric


def judging_problems(run: Run, round: Round, choice: Choice, base: ModelRef, chat: Chat) -> Iterator[str]:
    """What keeps a judge, or a member of one (a judge or a metric), from judging the round's answers."""
    judge: Judge | TextMetric = choice.build()
    if judge.needs_references:
        yield from _reference_problems(round, choice, "compares with human answers", "other judge.metrics")
    if not isinstance(judge, Judge):
        return
    if judge.uses_rewards:
        yield from _reward_problems(run, round, choice)
    if asked := judge.asks():
        rubric = run.resources.files.rubric(asked.rubric)
        if rubric.needs_reference:
            why = f"rubric {rubric.name} wants a reference answer"
            yield from _reference_problems(round, choice, why, "another judge.rubric")
        yield from _context_problems(run, round, asked, rubric, base, chat)


def _reward_problems(run: Run, round: Round, judge: Choice) -> Iterator[str]:
    """A reward model is run by an engine that can."""
    room = run.resources.engines.judging(round)
    if not room.choice.plugin.load().runs_rewards:
        name = next(name for name, each in run.resources.engines.named().items() if each is room)
        yield f"judge={judge.name}: {name}={room.choice.name} runs no reward models; set judge_engine=transformers"


def _reference_problems(round: Round, judge: Choice, why: str, other: str) -> Iterator[str]:
    """Nobody has answered a prompt that a model has just written."""
    writer = round.prompt_generator
    if writer.plugin.load().uses_model:
        yield (
            f"{judge.kind}={judge.name}: {why}, and the prompts of prompt_generator={writer.name} have none: use "
            f"prompt_generator=dataset, or {other}"
        )


def _context_problems(
    run: Run, round: Round, asked: Asking, rubric: Rubric, base: ModelRef, chat: Chat
) -> Iterator[str]:
    """The longest judge prompt must leave room for the verdict: rubric, answers of full length, and the reply."""
    limit = context_length(Path(base.path))
    if limit is None or run.resources.engines.judging(round).foreign:
        return
    turns = [{"role": role, "content": ""} for _ in range(rubric.turns or 1) for role in ("user", "assistant")]
    prompt = rubric.messages(turns, turns if rubric.compares else (), [""] * (rubric.turns or 1))
    fixed = len(chat.encode(prompt, rubric.reply_prefix))
    shown = 2 if rubric.compares else 1
    sampler = round.sampler.build()
    answer = sampler.sampling.max_new_tokens if sampler.uses_model else 0
    if (needed := fixed + asked.tokens + shown * answer) > limit:
        yield (
            f"the context of {limit} tokens is too short for judging: rubric '{rubric.name}' {fixed} + answer "
            f"{'2 x ' * (shown - 1)}sampler.max_new_tokens={answer} + verdict judge.max_new_tokens={asked.tokens} = "
            f"{needed} tokens before the instruction; lower one of them, or use a shorter rubric (judge.rubric=)"
        )


def context_length(folder: Path) -> int | None:
    """``max_position_embeddings`` of a checkpoint; None where it does not say."""
    config = folder / "config.json"
    value = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings") if config.is_file() else None
    return int(value) if value else None
