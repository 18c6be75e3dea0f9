"""Answers and scores while a model trains: the round's sampler on the weights of the moment, and the round's judge.

An online optimizer's stages 2 and 3 are here. The model in training has a name of its own in every step, so that the
engine takes its weights anew; who judges does not change while it trains: a judge whose model is ``policy`` is the
policy the round began with. It runs on an engine of its own, beside the one that samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import AnsweredPrompt, Candidate, Judgement, Prompt, digest
from selfreward.core.contracts.rounds import Round
from selfreward.core.errors import StageError
from selfreward.core.run.context import Context, EngineRoom

if TYPE_CHECKING:
    from selfreward.core.run.run import Run


class Rollouts:
    """The :class:`selfreward.Rollouts` of one training."""

    def __init__(self, run: Run, round: Round, start: ModelRef) -> None:
        self._run, self._round, self._start = run, round, start
        self._sampler, self._judge = round.sampler.build(), round.judge.build()
        self.n = int(getattr(round.sampler.config, "n", 1))
        shared = judge_model(run, round) is not None and _judges_room(run, round) is run.room
        self._judge_room = EngineRoom(run.choices["engine"]) if shared else _judges_room(run, round)

    @staticmethod
    def identity(run: Run, round: Round) -> dict[str, Any]:
        """What the samples and scores depend on besides the prompts and the start."""
        judge, reference = judge_model(run, round), getattr(round.judge.config, "reference", None)
        return {
            "sampler": run.identity(round.sampler),
            "judge": run.identity(round.judge),
            "judge_model": judge.key if judge else None,
            "judge_reference": run.role(reference).key if judge and reference else None,
            **run.execution_parts(),
        }

    def sample(self, prompts: Sequence[Prompt], weights: Mapping[str, Any], step: int) -> list[AnsweredPrompt]:
        """The sampler's answers by the model with these weights."""
        key = digest("training", self._start.key, self._round.makes, step)
        model = replace(self._start, name=self._round.makes, key=key, weights=weights)
        context = self._context(self._run.room, model, "candidates", step)
        answers: dict[str, list[Candidate]] = {prompt.prompt_id: [] for prompt in prompts}
        for candidate in self._sampler.sample(prompts, context):
            answers[candidate.prompt_id].append(candidate)
        return [AnsweredPrompt(prompt, answers[prompt.prompt_id]) for prompt in prompts]

    def score(self, answered: Sequence[AnsweredPrompt], step: int) -> list[Judgement]:
        """The judge's word on every candidate.

        Raises:
            StageError: a judgement is missing, or its score is no finite number.
        """
        context = self._context(self._judge_room, judge_model(self._run, self._round), "judgements", step)
        judgements = list(self._judge.score(answered, context))
        where = f"judge '{self._round.judge.name}' ({self._round.folder}, step {step})"
        expected = [candidate.candidate_id for group in answered for candidate in group.candidates]
        if [judgement.candidate_id for judgement in judgements] != expected:
            raise StageError(f"{where} must give one judgement per candidate, in order")
        for judgement in judgements:
            if judgement.score is not None and not math.isfinite(judgement.score):
                raise StageError(
                    f"{where} gave candidate {judgement.candidate_id} the score {judgement.score}, which is no number "
                    "to train on; nothing was saved. What cannot be scored is None"
                )
        return judgements

    def close(self) -> None:
        """Give the engines' memory back."""
        self._run.close_engines()
        self._judge_room.release()

    def _context(self, room: EngineRoom, model: ModelRef | None, stage: str, step: int) -> Context:
        run, round = self._run, self._round
        scope = (round.name, round.iteration, stage, step)
        return Context(run.files, room, model, run.seed, scope, roles=lambda role: room.ref(run.role(role)))


def judge_model(run: Run, round: Round) -> ModelRef | None:
    """The model that judges the round; None where the judge runs none."""
    if not getattr(round.judge.plugin.load(), "uses_model", False):
        return None
    return _judges_room(run, round).ref(run.role(getattr(round.judge.config, "model", "policy")))


def _judges_room(run: Run, round: Round) -> EngineRoom:
    """The loop's judge may have an engine of its own."""
    return run.judge_room if round.name == "loop" else run.room
