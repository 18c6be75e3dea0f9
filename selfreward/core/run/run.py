"""A run: what the loop calls around the five stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfreward.core.config.kinds import LIST_KINDS
from selfreward.core.config.resolve import RunConfig
from selfreward.core.contracts.evaluation import Metric
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.records import Demonstration
from selfreward.core.contracts.rounds import STAGES, Round
from selfreward.core.run.announcer import Announcer
from selfreward.core.run.context import Files
from selfreward.core.run.engines import Engines
from selfreward.core.run.evaluation import Evaluation, Measurement
from selfreward.core.run.folder import lay_out, run_folder, write_metrics
from selfreward.core.run.identity import Identity
from selfreward.core.run.isolation import Inline
from selfreward.core.run.plan import Plan
from selfreward.core.run.progress import Screen
from selfreward.core.run.resources import Resources
from selfreward.core.run.roles import Roles
from selfreward.core.run.round_log import RoundLog
from selfreward.core.run.stages.propose import Propose
from selfreward.core.run.stages.sample import Sample
from selfreward.core.run.stages.score import Score
from selfreward.core.run.stages.select import Select
from selfreward.core.run.stages.update import Update
from selfreward.core.run.step import Steps
from selfreward.core.run.summary import print_summary, round_metrics
from selfreward.core.store.artifacts import STAGE_FOLDERS, Artifact, Store
from selfreward.core.store.digests import remember_in

OLDER_COUNTED = 100
"""Stages of an older version of the store's format that are counted, at most."""
REFUSED_SHOWN = 5
"""Rows of the data that cannot be used, as far as the start of a run shows them."""


class Run:
    """One run of a recipe: its rounds in order, the models they make, and what is measured of them."""

    def __init__(self, config: RunConfig, screen: Screen | None = None, process: Inline | None = None) -> None:
        self.config, self.options = config, config.options
        self.process, self.screen = process or Inline(), screen or Screen()
        self.folder = run_folder(config)
        self.resources = self._resources()
        self.evaluation = Evaluation(self.resources, config)
        self.metrics: list[Metric] = []
        self._sets: dict[str, Artifact] = {}
        self._made: dict[str, Round] = {}
        self._previous: Measurement | None = None

    def _resources(self) -> Resources:
        choices, options = self.config.choices, self.options
        files = Files(choices["data"].build(), choices["model"].config)
        engines = Engines(choices["engine"], options.judge_engine)
        store, log = Store(Path(options.store.path)), RoundLog(engines.main)
        if not options.dry_run:  # which leaves nothing behind
            remember_in(store.path / "digests")
        return Resources(
            options,
            files,
            Roles(choices["model"]),
            Identity(self.config, files),
            engines,
            store,
            Steps(store, self.process, self.screen, log),
            log,
            Announcer(self.screen, self.folder, self.config.lists["monitors"], silent=not self.process.tells),
            Plan(),
        )

    # ------------------------------------------------------------------ before

    def start(self) -> None:
        """The first models take their roles; the folder is laid out; what the data leaves out is told."""
        run = self.resources
        run.roles.enter()
        if self.options.dry_run:
            return
        lay_out(self.folder, self.config)
        self.screen.line(f"run    {self.folder}\nstore  {run.store.path}")
        if older := run.store.older(most=OLDER_COUNTED):
            seen = f"{older}{' or more' * (older == OLDER_COUNTED)}"
            self.screen.line(f"stages of an older version in the store: {seen}; left alone, their work is done anew")
        if self.config.brought:
            self.screen.line(self.config.brought)
        refused = run.data.refused
        for refusal in refused[:REFUSED_SHOWN]:
            self.screen.line(f"data row left out: {refusal}", "yellow")
        if len(refused) > REFUSED_SHOWN:
            self.screen.line(f"data rows left out: {len(refused):,} in all", "yellow")
        for reason, count in sorted(run.data.left_out.items()):
            self.screen.line(f"data rows in no split: {count:,}, {reason}")
        run.announcer.event("run_started", config=self.config.composed)

    def rounds(self) -> Iterator[Round]:
        """The recipe's rounds in order."""
        recipe = self.config.choices["recipe"].build()
        return recipe.rounds(self.loop_round(), self.options.iterations, self.resources.data)

    def loop_round(self) -> Round:
        """The round that the top-level groups configure."""
        stages: dict[str, Any] = {kind: self.config.choices[kind] for kind in STAGES}
        stages |= {kind: self.config.lists[kind] for kind in LIST_KINDS if kind.endswith("filters")}
        return Round("loop", **stages, is_loop=True)

    # ------------------------------------------------------------------ around a round

    def begin(self, round: Round) -> tuple[Propose, Sample, Score, Select, Update]:
        """Print which model starts, which is the reference, which judges; return the five stages."""
        run = self.resources
        stages = (
            Propose(run, round, round.prompt_generator),
            Sample(run, round, round.sampler),
            Score(run, round, round.judge),
            Select(run, round, round.selector),
            Update(run, round, round.optimizer),
        )
        propose, sample, score, _, update = stages
        update.seed_sets = self._seed_sets()
        refers = round.writes is not Demonstration and not round.makes_reward
        writer = f"{sample.choice.name} by {round.makes} in training" if round.online else sample.by
        parts = [
            f"prompts {propose.by}",
            f"answers {writer}",
            f"judge {score.by}",
            f"{round.selector.name} → {round.optimizer.name} from {update.start.name}"
            + (f" (reference {update.reference.name})" if refers else "")
            + (f", with the set of {', '.join(round.train_on)}" if round.train_on else "")
            + (f", replaying {', '.join(update.replayed)}" if update.replayed else ""),
        ]
        run.log.begin()
        self.screen.rule(f"{round.folder}: {update.start.name} → {round.makes}")
        self.screen.line("  " + " · ".join(parts))
        if round.online:
            self.screen.line(
                f"  {round.optimizer.name} samples and judges while it trains: no tables of candidates and judgements"
            )
        return stages

    def earlier_sets(self, round: Round) -> list[Artifact]:
        """The training sets of the earlier rounds this one trains on as well."""
        return [self._sets[name] for name in round.train_on]

    def _seed_sets(self) -> dict[str, Artifact]:
        """The training sets of demonstrations that the rounds before the loop have made, by round."""
        rounds = [round for round in self._made.values() if not round.iteration]
        return {round.name: self._sets[round.name] for round in rounds if round.writes is Demonstration}

    def finish(self, round: Round, policy: ModelRef, training: Artifact) -> None:
        """The new model takes its role."""
        self.resources.roles.made(round, policy)
        self._sets[round.name] = training
        self._made[round.makes] = round
        if not self.options.dry_run:
            log = self.resources.log
            self.metrics += round_metrics(round.makes, log.figures, log.seconds, log.engine_busy)

    # ------------------------------------------------------------------ measuring and the end

    def measure(self, name: str) -> None:
        """Run the evaluators on a model; its figures are artifacts like any other."""
        round = self._made.get(name)
        is_reward = bool(round and round.makes_reward)
        model = self.resources.roles[name]
        done = self.evaluation.measure(model, self._previous, "reward" if is_reward else "policy")
        if not is_reward:
            self._previous = done
        if self.options.dry_run or not self.process.tells:
            return
        self.metrics = list({(m.model, m.evaluator, m.metric): m for m in [*self.metrics, *done.metrics]}.values())
        write_metrics(self.folder, self.metrics)
        self.resources.announcer.event(
            "iteration_finished",
            round=round.name if round else "",
            iteration=round.iteration if round else 0,
            model=name,
            metrics=[m for m in self.metrics if m.model == name],
        )

    def end(self) -> None:
        """Print the table and say where everything is."""
        run = self.resources
        if self.options.dry_run:
            return run.plan.show(self.screen, Path(run.roles["base"].path))
        print_summary(self.screen, self.metrics)
        final = run.roles["policy"]
        self.screen.line(f"\nmetrics      {self.folder / 'metrics.json'}")
        if final.name in self._made:
            self.screen.line(f"{final.name:<12} {self.folder / self._made[final.name].folder / STAGE_FOLDERS['model']}")
        self.screen.line(f"look at rows python -m selfreward show {self.folder}")
        run.announcer.event("run_finished", metrics=self.metrics)

    def fail(self, problem: BaseException) -> None:
        """The run ends with this problem: print the numbers so far, and tell whoever watches."""
        print_summary(self.screen, self.metrics)
        self.resources.announcer.event("run_failed", error=str(problem) or type(problem).__name__)

    def close(self, wait: bool = True) -> None:
        """Children end, and engines give their memory back."""
        self.process.close()
        self.resources.engines.close(wait)
