"""Answers and scores while a model trains: the round's sampler on the weights of the moment, and the round's judge.

An online optimizer's stages 2 and 3 are here. The model in training has a name of its own in every step, so that the
engine takes its weights anew; who judges does not change while it trains: a judge whose model is ``policy`` is the
policy the round began with. It runs on an engine of its own, beside the one that samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import AnsweredPrompt, Candidate, Judgement, Prompt, digest
from selfreward.core.contracts.rounds import Round
from selfreward.core.run.engines import EngineRoom
from selfreward.core.run.judgements import check_judgements
from selfreward.core.run.resources import Resources


class Rollouts:
    """The :class:`selfreward.Rollouts` of one training."""

    def __init__(self, run: Resources, round: Round, start: ModelRef) -> None:
        self._run, self._round, self._start = run, round, start
        self._sampler, self._judge = round.sampler.build(), round.judge.build()
        self.n = self._sampler.n
        judging = run.engines.judging(round)
        shared = bool(self._judge.models()) and judging is run.engines.main
        self._judge_room = EngineRoom(judging.choice) if shared else judging

    @staticmethod
    def identity(run: Resources, round: Round) -> dict[str, Any]:
        """What the samples and scores depend on besides the prompts and the start."""
        judges = judge_models(run, round)
        return {
            "sampler": run.identity.of(round.sampler),
            "judge": run.identity.of(round.judge),
            "judge_model": judges[0].key if judges else None,
            "judge_reference": judges[1].key if judges[1:] else None,
            **run.identity.execution,
        }

    def sample(self, prompts: Sequence[Prompt], weights: Mapping[str, Any], step: int) -> list[AnsweredPrompt]:
        """The sampler's answers by the model with these weights."""
        key = digest("training", self._start.key, self._round.makes, step)
        model = replace(self._start, name=self._round.makes, key=key, weights=weights)
        context = self._run.context(self._run.engines.main, model, *self._scope("candidates", step))
        answers: dict[str, list[Candidate]] = {prompt.prompt_id: [] for prompt in prompts}
        for candidate in self._sampler.sample(prompts, context):
            answers[candidate.prompt_id].append(candidate)
        return [AnsweredPrompt(prompt, answers[prompt.prompt_id]) for prompt in prompts]

    def score(self, answered: Sequence[AnsweredPrompt], step: int) -> list[Judgement]:
        """The judge's word on every candidate.

        Raises:
            StageError: a judgement is missing, or its score is no finite number; nothing is saved then.
        """
        model = next(iter(judge_models(self._run, self._round)), None)
        context = self._run.context(self._judge_room, model, *self._scope("judgements", step))
        judgements = list(self._judge.score(answered, context))
        check_judgements(f"judge '{self._round.judge.name}' ({self._round.folder}, step {step})", judgements, answered)
        return judgements

    def close(self) -> None:
        """Give the engines' memory back."""
        self._run.engines.close()
        self._judge_room.release()

    def _scope(self, stage: str, step: int) -> tuple[str | int, ...]:
        return self._round.name, self._round.iteration, stage, step


def judge_models(run: Resources, round: Round) -> list[ModelRef]:
    """The models that judge the round; none where the judge runs none."""
    room = run.engines.judging(round)
    return [room.ref(run.roles[role]) for role in round.judge.build().models()]
