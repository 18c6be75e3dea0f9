"""Stage 5: the next model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import Demonstration
from selfreward.core.contracts.stages import TrainingContext, TrainingSet
from selfreward.core.errors import SelfRewardError, StageError, UserError
from selfreward.core.run.plan import Cost
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.rollouts import Rollouts
from selfreward.core.run.stages.keyed import KeyedStage, expected
from selfreward.core.store.artifacts import Artifact


class Update(KeyedStage):
    """The optimizer at work, in one process or in many."""

    name = "model"
    trains = True
    seed_sets: Mapping[str, Artifact] = {}
    """Training sets of demonstrations of the rounds before the loop, by round."""

    @property
    def start(self) -> ModelRef:
        """The model that training starts from."""
        return self.run.roles[self.choice.config.init_from]

    @property
    def reference(self) -> ModelRef:
        """The frozen reference."""
        return self._playing(self.choice.config.reference)

    @property
    def critic(self) -> ModelRef | None:
        """The model that a value model starts from; None where the optimizer has none of its own."""
        return self._playing(self.plugin.critic) if self.plugin.critic else None

    def _playing(self, role: str) -> ModelRef:
        return self.start if role == "start" else self.run.roles[role]

    @property
    def replayed(self) -> Mapping[str, Artifact]:
        """The demonstrations that the optimizer replays, by round.

        Raises:
            UserError: it wants some, and there are none.
        """
        if self.plugin.replays and not self.seed_sets:
            raise UserError(
                "optimizer.replay: no round before the loop makes demonstrations; set it to 0, or take a recipe that "
                "begins with them (recipe=self_rewarding)"
            )
        return self.seed_sets if self.plugin.replays else {}

    def update(self, *training: Artifact) -> ModelRef:
        """Train on these sets together, earlier rounds' first.

        Raises:
            StageError: there is nothing to train on.
        """
        rows = sum(expected(artifact) or 0 for artifact in training)
        if not rows and not self.run.options.dry_run:
            raise StageError(self._nothing_to_train_on())
        inputs: dict[str, Any] = {"training": [a.key.hash for a in training]}
        if self.replayed:
            inputs["replay"] = [a.key.hash for a in self.replayed.values()]
        if self.critic:
            inputs["critic"] = self.critic.key
        if self.round.online:
            inputs["rollouts"] = Rollouts.identity(self.run, self.round)
        key = self.key(
            **inputs,
            makes=[self.round.makes, "reward" if self.round.makes_reward else "policy"],
            start=self.start.key,
            reference=self.reference.key,
            model_config=self.run.identity.training,
        )
        total = rows if self.run.options.dry_run else None  # the bar counts optimizer steps, known when they begin
        artifact = self.make(key, total, lambda artifact, bar: self._fill(artifact, bar, training, rows))
        return ModelRef(self.round.makes, str(artifact.folder), artifact.key.hash, self.run.files.model_config)

    def cost(self, rows: int) -> Cost:
        """What an online optimizer writes while it trains: answers, and the verdicts on them where a model judges."""
        if not self.round.online:
            return Cost(0, 0)
        sampler, judge = self.round.sampler.build(), self.round.judge.build()
        answers = math.ceil(rows * sampler.n * self.plugin.passes)
        asked = judge.asks()
        verdicts = answers * asked.replies if asked else 0
        tokens = answers * sampler.sampling.max_new_tokens + verdicts * (asked.tokens if asked else 0)
        return Cost(answers + verdicts, tokens)

    def _fill(self, artifact: Artifact, bar: Bar, training: Sequence[Artifact], rows: int) -> None:
        self.run.engines.close()
        watch = Stopwatch()

        def fill(out: Path, work: Path) -> Mapping[str, float]:
            together()  # the folders are there
            figures = self._train(training, out, work, bar)
            return {**figures, "training_rows": rows, "seconds": watch.seconds}

        if self.run.steps.process.main:
            artifact.write_folder(fill)
        else:
            fill(*artifact.building)
        together()  # the artifact is complete

    def _train(self, training: Sequence[Artifact], out: Path, work: Path, bar: Bar) -> dict[str, float]:
        """The plugin's figures; what goes wrong in it is told with its name."""
        rollouts = Rollouts(self.run, self.round, self.start) if self.round.online else None

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            bar.update(total, done, figures)

        context = TrainingContext(
            start=self.start,
            reference=self.reference,
            out=out,
            work=work,
            seed=self.context().seed("train") % 2**32,
            progress=progress,
            replay=_chain(list(self.replayed.values()), Demonstration) if self.replayed else None,
            temperature=self.round.sampler.build().sampling.temperature,
            rollouts=rollouts,
            critic=self.critic,
            reference_outputs=self._reference_outputs,
        )
        try:
            figures = self.plugin.update(_chain(training, self.round.writes), context)
        except (SelfRewardError, KeyboardInterrupt):
            raise
        except Exception as problem:
            raise StageError(f"{self.where} failed: {type(problem).__name__}: {problem}") from problem
        finally:
            if rollouts:
                rollouts.close()
        return {name: float(value) for name, value in figures.items()}

    def _reference_outputs(self) -> Iterator[tuple[Sequence[dict[str, str]], str]]:
        """The best human answer to each prompt of the data's demonstrations."""
        for row in self.run.data.split("ift", self.run.seed):
            if row.candidates:
                best = min(row.candidates, key=lambda c: c.rank or 0)
                yield row.prompt.messages, best.text

    def _nothing_to_train_on(self) -> str:
        """Why the round has no training rows, with the numbers and the knobs."""
        figures, round = self.run.log.figures, self.round
        verdicts, prompts = figures.get("judgements", {}), figures.get("prompts", {})
        votes, unreadable = verdicts.get("votes", 0), verdicts.get("unreadable", 0)
        read = (
            f"{1 - unreadable / votes:.1%} of {votes:.0f} verdicts could be read"
            if votes
            else "no verdict was asked for"
        )
        return (
            f"{round.folder}: nothing is left to train on. {prompts.get('rows', 0):.0f} prompts, "
            f"{verdicts.get('rows', 0):.0f} judged answers, {read}, selector '{round.selector.name}' found no row. "
            f"Look at them with 'python -m selfreward show {self.run.announcer.folder} PROMPT_ID'; ways out: another "
            "judge or rubric (judge.rubric=), more answers (sampler.n=), a model that was taught to judge "
            "(recipe.eft.source=)"
        )


def _chain(sets: Sequence[Artifact], record: type[Any]) -> TrainingSet:
    return TrainingSet(record, sum(len(a) for a in sets), lambda: (row for a in sets for row in a.rows(record)))


def together() -> None:
    """Wait for the other processes that train the same model, where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
