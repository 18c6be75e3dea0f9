"""The five stages of a round, each made into an artifact of the store.

This is what plugin authors do not write: slicing, seeds, keys, files, progress and resume. Shard ``i`` of every table
belongs to shard ``i`` of the prompts, and a shard never splits the candidates of one prompt.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import (
    AnsweredPrompt,
    Candidate,
    Demonstration,
    JudgedPrompt,
    Judgement,
    Prompt,
    Record,
    TrainingRow,
)
from selfreward.core.contracts.rounds import Choice, Round
from selfreward.core.contracts.stages import NO_CRITIC, TrainingContext, TrainingSet
from selfreward.core.errors import SelfRewardError, StageError, UserError
from selfreward.core.run.context import Context, EngineRoom, drain_counters
from selfreward.core.run.isolation import Needs
from selfreward.core.run.progress import Bar, Stopwatch
from selfreward.core.run.rollouts import Rollouts
from selfreward.core.run.sieve import Sieve
from selfreward.core.run.step import Step
from selfreward.core.store.artifacts import Artifact, Key
from selfreward.core.store.aside import Aside
from selfreward.core.store.tables import answered_shards, judged_shards, shards_of

if TYPE_CHECKING:
    from selfreward.core.run.run import Run

T = TypeVar("T")


class KeyedStage:
    """A stage of a round: its plugin, the model it runs, and its artifact."""

    name = ""
    unit = "rows"
    trains = False

    def __init__(self, run: Run, round: Round, choice: Choice) -> None:
        self.run, self.round, self.choice = run, round, choice
        self.plugin = choice.build()

    @property
    def model(self) -> ModelRef | None:
        """The model the stage runs; None where it runs none."""
        role = getattr(self.choice.config, "model", "policy")
        return self.room.ref(self.run.role(role)) if getattr(self.plugin, "uses_model", False) else None

    @property
    def beside(self) -> ModelRef | None:
        """The second model that the stage runs, where its options name one (``reference``)."""
        role = getattr(self.choice.config, "reference", None)
        return self.room.ref(self.run.role(role)) if role and self.model else None

    @property
    def room(self) -> EngineRoom:
        """The engine that the stage runs it on."""
        return self.run.room

    def context(self) -> Context:
        """What the plugin is given."""
        run, round = self.run, self.round
        scope = (round.name, round.iteration, self.name)
        return Context(
            run.files, self.room, self.model, run.seed, scope, roles=lambda role: self.room.ref(run.role(role))
        )

    def key(self, **inputs: Any) -> Key:
        """Everything the artifact depends on."""
        parts: dict[str, Any] = {
            "round": self.round.name,
            "iteration": self.round.iteration,
            "seed": self.run.seed,
            "plugin": self.run.identity(self.choice, self.plugin),
            "model": [self.model.name, self.model.key] if self.model else None,
            "data": self.run.data_key,
            **({"reference": self.beside.key} if self.beside else {}),
            **inputs,
        }
        return Key(self.name, parts | (self.run.execution_parts() if self.model else {}))

    @property
    def needs(self) -> Needs:
        """What the work takes besides Python."""
        return Needs.trainer if self.trains else Needs.engine if self.model else Needs.nothing

    def make(
        self, key: Key, total: float | None, work: Callable[[Artifact, Bar], None], aside: bool = False
    ) -> Artifact:
        """The artifact of a key: from the store when it is there, else by ``work``, on from the last whole shard.

        ``aside``: the work may be done in a thread, while the reader of the shards goes on.
        """
        artifact = self.run.store.artifact(key)
        if self.run.options.dry_run:
            return self.plan(artifact, total)
        step = Step(self.run, artifact, self.needs, self.name.replace("_", " "), total, work)

        def told() -> None:
            self.run.stage_finished(self, artifact, step.seconds, step.why_new)
            step.passed()

        if aside and step.is_mine:
            Aside(artifact, step.do, told)
        else:
            step.do()
            told()
        return artifact

    def plan(self, artifact: Artifact, rows: float | None) -> Artifact:
        """Take note of what would be done, and do nothing."""
        artifact.reused = artifact.is_finished()
        artifact.expected = len(artifact) if artifact.reused else None if rows is None else int(rows)
        self.run.plan.stage(self, artifact, artifact.expected)
        return artifact

    def map_shards(
        self,
        artifact: Artifact,
        record: type[Record],
        bar: Bar,
        inputs: Iterable[Any],
        work: Callable[[Any, Context], list[Any]],
        sieve: Sieve | None = None,
    ) -> None:
        """One shard of output for each of input; shards that are there already are passed over (a sieve takes note)."""
        context = self.context()
        context.bar = bar
        for index, shard in enumerate(inputs):
            if index < len(artifact.shards):
                if sieve:
                    sieve.resume(artifact.rows(record, index), artifact.shards[index].examples)
                bar.settle(_size(shard))
                continue
            watch, waited = Stopwatch(), context.waited
            context.weight = _size(shard)
            rows = work(shard, context)
            seconds = watch.seconds - (context.waited - waited)
            self.write(artifact, record, rows, {**drain_counters(context), "seconds": seconds}, sieve)
            bar.settle(_size(shard))
        artifact.finish()

    def drain(self, rows: Iterable[T], names: Sequence[str]) -> list[T]:
        """The plugin's rows; an exception is told with plugin, stage and the row it happened at."""
        out: list[T] = []
        try:
            for row in rows:
                out.append(row)
        except SelfRewardError:
            raise
        except Exception as problem:
            at = names[min(len(out), len(names) - 1)] if names else "the first row"
            raise StageError(f"{self.where} failed at {at}: {type(problem).__name__}: {problem}") from problem
        return out

    def write(
        self,
        artifact: Artifact,
        record: type[Record],
        rows: list[Any],
        figures: Mapping[str, float],
        sieve: Sieve | None = None,
    ) -> None:
        """Add a shard; rows that do not have the record's types are told as the plugin's fault."""
        import pyarrow as pa

        try:
            artifact.write_shard(record, rows, figures, sieve.take_examples() if sieve else None)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
            raise StageError(f"{self.where} gave a row that is no {record.__name__}: {problem}") from problem

    @property
    def where(self) -> str:
        """``judge 'llm_cot' (iter-01, judgements)``, for messages."""
        return f"{self.choice.kind} '{self.choice.name}' ({self.round.folder}, {self.name})"


class Propose(KeyedStage):
    """Stage 1: prompts that are new, pass the filters, and belong to no held-out set."""

    name = "prompts"
    unit = "prompts"

    def propose(self) -> Artifact:
        """The prompts."""
        filters = [self.run.identity(choice) for choice in self.round.prompt_filters]
        wanted = self.choice.config.n
        split = getattr(self.choice.config, "split", None)
        rows = len(self.run.data.split(split, self.run.seed)) if wanted is None and split else wanted
        return self.make(self.key(filters=filters), rows, lambda artifact, bar: self._fill(artifact, bar, wanted))

    def _fill(self, artifact: Artifact, bar: Bar, wanted: int | None) -> None:
        context = self.context()
        context.bar = bar
        writes_new = getattr(self.plugin, "uses_model", False)
        sieve = Sieve(self.round.prompt_filters, self.run.seed_prompts() if writes_new else ())
        sieve.forbid(self.run.held_out_prompts(), "held out")
        accepted: list[Prompt] = []
        for index in range(len(artifact.shards)):
            accepted += sieve.resume(artifact.rows(Prompt, index), artifact.shards[index].examples)
        tried = int(sum(shard.figures["tried"] for shard in artifact.shards))
        bar.settle(len(accepted))
        attempts = getattr(self.choice.config, "attempts", 6)
        while wanted is None or len(accepted) < wanted:
            if wanted is not None and tried >= attempts * wanted:
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
                f"{self.where} gave no prompt out of {tried} tried: {_why(artifact)}; ways out: more room for a reply "
                "(prompt_generator.max_new_tokens=), or prompts from the data (prompt_generator=dataset)"
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
        if getattr(self.plugin, "uses_model", False):
            figures["written"] = len(parsed)
            verdicts = [self.run.data.valid_prompt(prompt) for prompt in parsed]
            if any(v is not None for v in verdicts):
                figures["valid"] = sum(bool(v) for v in verdicts)
        return figures | {f"dropped: {reason}": count for reason, count in sorted(why.items())}


class Sample(KeyedStage):
    """Stage 2: candidates for every prompt."""

    name = "candidates"
    unit = "candidates"

    def sample(self, prompts: Artifact) -> Artifact | None:
        """The candidates; None where the optimizer samples while it trains."""
        if self.round.online:
            return None
        filters = [self.run.identity(choice) for choice in self.round.candidate_filters]
        key = self.key(prompts=prompts.key.hash, filters=filters)
        rows = _expected(prompts, getattr(self.choice.config, "n", 1)) if self.run.options.dry_run else len(prompts)
        judge = Score(self.run, self.round, self.round.judge)
        # a foreign judge on the same engine, or one that runs two models, would move it to and fro between them
        apart = judge.room is not self.room
        same = judge.model == self.model and judge.beside is None
        aside = bool(self.model and judge.model) and (apart or same)
        return self.make(key, rows, lambda artifact, bar: self._fill(artifact, bar, prompts), aside)

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


class Score(KeyedStage):
    """Stage 3: a judgement for every candidate."""

    name = "judgements"
    unit = "candidates"

    @property
    def room(self) -> EngineRoom:
        """The loop's judge may have an engine of its own."""
        return self.run.judge_room if self.round.name == "loop" else self.run.room

    def score(self, prompts: Artifact, candidates: Artifact | None) -> Artifact | None:
        """The judgements; None where the optimizer has its own answers judged while it trains."""
        if candidates is None:
            return None
        key = self.key(candidates=candidates.key.hash)

        def fill(artifact: Artifact, bar: Bar) -> None:
            self.map_shards(artifact, Judgement, bar, answered_shards(prompts, candidates), self._work)

        each = getattr(self.round.sampler.config, "n", 1)
        rows = len(prompts) * each if candidates.aside else _expected(candidates)
        judgements = self.make(key, rows, fill)
        if candidates.aside:  # the judgements were there already
            candidates.aside.join()
        return judgements

    def _work(self, shard: list[AnsweredPrompt], context: Context) -> list[Judgement]:
        expected = [c.candidate_id for group in shard for c in group.candidates]
        rows = self.drain(self.plugin.score(shard, context), [f"candidate {i}" for i in expected])
        if [row.candidate_id for row in rows] != expected:
            raise StageError(f"{self.where} must give one judgement per candidate, in order")
        for row in rows:
            if any(number is not None and not math.isfinite(number) for number in (row.score, *row.votes)):
                raise StageError(
                    f"{self.where} gave candidate {row.candidate_id} a score that is no number: {row.score}"
                )
        count_verdicts(rows, context)
        return rows


class Select(KeyedStage):
    """Stage 4: the training set."""

    name = "training_set"

    def __init__(self, run: Run, round: Round, choice: Choice) -> None:
        super().__init__(run, round, choice)
        self.unit = {"Preference": "pairs", "Instruction": "prompts"}.get(self.plugin.writes.__name__, "examples")

    def select(self, prompts: Artifact, candidates: Artifact | None, judgements: Artifact | None) -> Artifact:
        """The training rows; for an online optimizer, from the prompts alone."""
        filters = [self.run.identity(choice) for choice in self.round.pair_filters]
        source = {"judgements": judgements.key.hash} if judgements else {"prompts": prompts.key.hash}
        key = self.key(**source, filters=filters)

        def fill(artifact: Artifact, bar: Bar) -> None:
            sieve = Sieve(self.round.pair_filters, duplicates=True)
            judged = judged_shards(prompts, candidates, judgements)

            def work(shard: list[JudgedPrompt], context: Context) -> list[TrainingRow]:
                return self._work(shard, context, sieve)

            self.map_shards(artifact, self.plugin.writes, bar, judged, work, sieve)

        return self.make(key, _expected(prompts), fill)

    def _work(self, shard: list[JudgedPrompt], context: Context, sieve: Sieve) -> list[TrainingRow]:
        rows: list[TrainingRow] = []
        for judged in shard:
            rows += self.drain(self.plugin.select(judged), [f"prompt {judged.prompt.prompt_id}"])
        kept, why = sieve.sift(rows)
        context.count(prompts=len(shard), **{f"dropped: {reason}": count for reason, count in why.items()})
        return kept


class Update(KeyedStage):
    """Stage 5: the next model."""

    name = "model"
    unit = "files"
    trains = True

    @property
    def start(self) -> ModelRef:
        """The model that training starts from."""
        return self.run.role(self.choice.config.init_from)

    @property
    def reference(self) -> ModelRef:
        """The frozen reference."""
        role = self.choice.config.reference
        return self.start if role == "start" else self.run.role(role)

    @property
    def critic(self) -> ModelRef | None:
        """The model that a value model starts from; None where the optimizer has none of its own."""
        role = getattr(self.choice.config, "critic", NO_CRITIC)
        return None if role == NO_CRITIC else self.start if role == "start" else self.run.role(role)

    @property
    def replayed(self) -> dict[str, Artifact]:
        """The demonstrations of the rounds before the loop, by round, where the optimizer replays them.

        Raises:
            UserError: there are none.
        """
        weight = getattr(self.choice.config, "replay", 0)
        sets = self.run.seed_demonstrations() if weight else {}
        if weight and not sets:
            raise UserError(
                f"optimizer.replay={weight:g}: no round before the loop makes demonstrations; set it to 0, or take a "
                "recipe that begins with them (recipe=self_rewarding)"
            )
        return sets

    def update(self, *training: Artifact) -> ModelRef:
        """Train on these sets together, earlier rounds' first.

        Raises:
            StageError: there is nothing to train on.
        """
        rows = sum(_expected(artifact) or 0 for artifact in training)
        if not rows and not self.run.options.dry_run:
            raise StageError(self.run.nothing_to_train_on(self.round))
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
            model_config=self.run.training_identity(),
        )
        total = rows if self.run.options.dry_run else None  # the bar counts optimizer steps, known when they begin
        artifact = self.make(key, total, lambda artifact, bar: self._fill(artifact, bar, training, rows))
        return ModelRef(self.round.makes, str(artifact.folder), artifact.key.hash, self.run.model_config)

    def _fill(self, artifact: Artifact, bar: Bar, training: Sequence[Artifact], rows: int) -> None:
        self.run.close_engines()
        main = self.run.process.main
        trained = _chain(training, self.round.selector.plugin.load().writes)
        replay = _chain(list(self.replayed.values()), Demonstration) if self.replayed else None
        watch = Stopwatch()

        def step(done: int, total: int, figures: Mapping[str, float]) -> None:
            bar.total(total)
            bar.settle(done - bar.done)
            bar.say(figures)

        def fill(out: Path, work: Path) -> Mapping[str, float]:
            together()  # the folders are there
            seed = self.context().seed("train") % 2**32
            temperature = getattr(self.round.sampler.config, "temperature", 1.0)
            rollouts = Rollouts(self.run, self.round, self.start) if self.round.online else None
            context = TrainingContext(
                self.start, self.reference, out, work, seed, step, replay,
                temperature, rollouts, self.critic, self._reference_outputs,
            )  # fmt: skip
            try:
                figures = self.plugin.update(trained, context)
            except (SelfRewardError, KeyboardInterrupt):
                raise
            except Exception as problem:
                raise StageError(f"{self.where} failed: {type(problem).__name__}: {problem}") from problem
            finally:
                if rollouts:
                    rollouts.close()
            numbers = {name: float(value) for name, value in figures.items()}
            return {**numbers, "training_rows": rows, "seconds": watch.seconds}

        if main:
            artifact.write_folder(fill)
        else:
            fill(*artifact.building)
        together()  # the artifact is complete

    def _reference_outputs(self) -> Iterator[tuple[Sequence[dict[str, str]], str]]:
        """The best human answer to each prompt of the data's demonstrations."""
        for row in self.run.data.split("ift", self.run.seed):
            if row.candidates:
                best = min(row.candidates, key=lambda c: c.rank or 0)
                yield row.prompt.messages, best.text


def _chain(sets: Sequence[Artifact], record: type[Any]) -> TrainingSet:
    return TrainingSet(record, sum(len(a) for a in sets), lambda: (row for a in sets for row in a.rows(record)))


def together() -> None:
    """Wait for the other processes that train the same model, where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def count_verdicts(rows: Iterable[Judgement], context: Context) -> None:
    """Count votes, unreadable votes, and candidates left without a score."""
    context.count(votes=0, unreadable=0, unscored=0)
    for row in rows:
        unreadable = sum(vote is None for vote in row.votes)
        context.count(votes=len(row.votes), unreadable=unreadable, unscored=row.score is None)


def _expected(artifact: Artifact, each: int = 1) -> int | None:
    """Rows the artifact has, or will have at most; None when nobody can tell."""
    rows = len(artifact) if artifact.manifest else artifact.expected
    return None if rows is None else rows * each


def _size(shard: Sequence[Any]) -> int:
    if shard and isinstance(shard[0], AnsweredPrompt):
        return sum(len(group.candidates) for group in shard)
    return len(shard)


def _why(artifact: Artifact) -> str:
    """What became of the rows, most frequent first."""
    told = ("tried", "parsed", "written", "valid", "seconds", "completions", "new_tokens")
    total: Counter[str] = Counter()
    for shard in artifact.shards:
        total.update({k.removeprefix("dropped: "): int(v) for k, v in shard.figures.items() if k not in told})
    return ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in total.most_common() if count)
