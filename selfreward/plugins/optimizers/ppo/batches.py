"""Where PPO's batches come from: prompts that are answered now, or answers that were scored before."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from selfreward import Instruction, Prompt, StageError, TrainingContext, TrainingSet, digest
from selfreward.plugins.optimizers.ppo.answers import Answer, AnswerEncoder, Batch, pack
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.training.policy_weights import policy_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

Logprobs = Callable[[Batch], list[list[float]]]
"""Log-probabilities of the tokens of each answer of a batch."""


class Batches:
    """``count`` batches of ``size`` prompts. Each process takes its share of each.

    In an epoch the prompts come once, in an order of its own; what does not fill a batch is left out, another part in
    each epoch.
    """

    def __init__(
        self, training: TrainingSet, encoder: AnswerEncoder, context: TrainingContext, config: PpoConfig,
        accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self._encoder, self._context, self._seed = encoder, context, context.seed
        self._world, self._rank, self._device = accelerator.num_processes, accelerator.process_index, accelerator.device
        self.counts: Counter[str] = Counter()
        """Of stored answers: ``answers``, ``too_long``, ``characters``."""
        online = training.row_type is Instruction
        self.prompts: list[Prompt] = [row.as_prompt() for row in training] if online else []
        self.stored = [] if online else self._groups(training)
        prompts = len(self.prompts or self.stored)
        self._per_epoch = math.ceil(prompts / config.rollouts)
        self.size = prompts // self._per_epoch
        if online:
            self.size -= self.size % self._world
        if not self.size:
            raise StageError(f"{prompts} prompts are fewer than the {self._world} processes that would share them")
        self.count = max(1, round(config.epochs * self._per_epoch))

    def _groups(self, training: TrainingSet) -> list[list[Answer]]:
        """The stored answers of each prompt."""
        of: dict[str, list[Any]] = {}
        for row in training:
            of.setdefault(row.prompt_id, []).append(row)
        groups = []
        for rows in of.values():
            answers, found = self._encoder.stored(rows)
            self.counts += found
            groups.append(answers)
        if not any(answer.score is not None for group in groups for answer in group):
            raise StageError(
                f"none of the {self.counts['answers']} scored answers fits into {self._encoder.longest} tokens; raise "
                "optimizer.max_length, or drop long rows"
            )
        return groups

    def add_old_logprobs(self, logprobs_of: Logprobs) -> None:
        """Note how likely each stored answer is under the model that has sampled it."""
        flat = [(g, i) for g, group in enumerate(self.stored) for i in range(len(group))]
        for start in range(0, len(flat), 1024):
            some = flat[start : start + 1024]
            known = logprobs_of(pack([self.stored[g][i] for g, i in some], Counter(), self._device))
            for (g, i), logprobs in zip(some, known, strict=True):
                self.stored[g][i] = replace(self.stored[g][i], old_logprobs=tuple(logprobs))

    def take(self, number: int, policy: Any) -> Batch:
        """This process's share of a batch; ``policy`` is asked for its answers where none are stored."""
        places = self._places(number)
        if not self.prompts:
            answers = [answer for place in places for answer in self.stored[place]]
            padding = [replace(answers[0], score=None)] * (-len(answers) % self._world)
            return pack([*answers, *padding][self._rank :: self._world], Counter(), self._device)
        mine, rollouts = [self.prompts[place] for place in places[self._rank :: self._world]], self._context.rollouts
        assert rollouts is not None
        with policy_weights(policy) as weights:
            answered = rollouts.sample(mine, weights, number)
        return pack(*self._encoder.sampled(rollouts, answered, number), self._device)

    def _places(self, number: int) -> Sequence[int]:
        epoch, slot = divmod(number, self._per_epoch)
        order = list(range(len(self.prompts or self.stored)))
        random.Random(digest(self._seed, "epoch", epoch)).shuffle(order)
        return order[slot * self.size : (slot + 1) * self.size]
