"""A run: its models by role, its folder, its store, and what the loop calls around the five stages."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from selfreward.core.config.registry import LIST_KINDS, did_you_mean, registry
from selfreward.core.config.resolve import Execution, Match, RunConfig
from selfreward.core.contracts.events import Event
from selfreward.core.contracts.model import ModelRef
from selfreward.core.contracts.options import plain, without_execution
from selfreward.core.contracts.records import Demonstration, Prompt, digest
from selfreward.core.contracts.rounds import STAGES, Choice, Round
from selfreward.core.contracts.stages import Finding, Metric, Monitor, Severity
from selfreward.core.errors import SelfRewardError, StageError, UserError
from selfreward.core.run.context import EngineRoom, Files
from selfreward.core.run.disk import free_space
from selfreward.core.run.evaluation import Measurement, measure
from selfreward.core.run.isolation import Inline, Parent
from selfreward.core.run.plan import Plan
from selfreward.core.run.preflight import base_model, preflight
from selfreward.core.run.progress import Screen
from selfreward.core.run.stages import KeyedStage, Propose, Sample, Score, Select, Update
from selfreward.core.run.summary import print_summary, round_metrics
from selfreward.core.store.artifacts import Artifact, Store
from selfreward.core.store.digests import file_digest
from selfreward.core.store.source import source_digest

FOLDERS = {"prompts": "1-prompts", "candidates": "2-candidates", "judgements": "3-judgements",
           "training_set": "4-training_set", "model": "5-model"}  # fmt: skip

NOT_THE_EXPERIMENT = ("run_dir", "runs_dir", "store", "engine", "execution", "launch", "dry_run", "monitors")
"""Settings that do not make it another run: where it is kept, how models are run and trained, who watches."""
FULL_DISK = (os.strerror(errno.ENOSPC), "unexpected pos", "PytorchStreamWriter failed writing")
"""How libraries not in Python tell of it: safetensors, and ``torch.save``, which only sees that bytes are missing."""
STYLES = {Severity.note: "", Severity.warning: "yellow"}


def run(config: RunConfig) -> Path:
    """Do the whole run, in this process or in children of it, and return its folder.

    Raises:
        UserError: found before any work.
        StageError: a stage failed; what was finished stays in the store.
    """
    from transformers.utils import logging

    from selfreward.core.loop import align

    logging.disable_progress_bar()  # a run has bars of its own
    this = Run(config)
    if is_isolated(config):
        this.process = Parent(this)
    try:
        with this.system_errors():
            this.start()
            align(this)
            this.end()
    except BaseException as problem:
        print_summary(this.screen, this.metrics)  # the numbers so far
        this.tell("run_failed", error=str(problem) or type(problem).__name__)
        raise
    finally:
        this.process.close()
        this.close_engines(wait=not isinstance(sys.exception(), KeyboardInterrupt))
    return this.folder


def is_isolated(config: RunConfig) -> bool:
    """Whether models are run and trained in children."""
    if config.options.execution is not Execution.auto or config.options.dry_run:
        return config.options.execution is Execution.isolated and not config.options.dry_run
    import torch

    return torch.cuda.is_available()


class Run:
    """One run of a recipe."""

    def __init__(self, config: RunConfig, screen: Screen | None = None, process: Inline | None = None) -> None:
        self.config, self.options = config, config.options
        self.process = process or Inline()
        self.seed = config.options.seed
        self.screen = screen or Screen()
        self.choices = config.choices
        self.store = Store(Path(self.options.store.path))
        self.room = EngineRoom(self.choices["engine"])
        own = self.options.judge_engine
        self.judge_room = EngineRoom(own) if own else self.room
        self.data = self.choices["data"].build()
        self.model_config = self.choices["model"].config
        self.files = Files(self.data, self.model_config)
        self.folder = run_folder(config)
        self.monitors = [(choice, choice.build()) for choice in config.lists["monitors"]]
        self.plan = Plan()
        self.metrics: list[Metric] = []
        self._sets: dict[str, Artifact] = {}
        self._made: dict[str, Round] = {}
        self._previous: Measurement | None = None
        self._models: dict[str, ModelRef] = {}
        self._seconds: dict[str, float] = {}
        self._stage_figures: dict[str, dict[str, float]] = {}
        self._steps = 0
        self._mark = (0.0, 0.0)
        self.busy_share: float | None = None
        """Share of the round's generating phase in which the engine had work; None where nothing was generated."""

    # ------------------------------------------------------------------ before

    def start(self) -> None:
        """Check everything that can be checked before the first token, and lay out the run's folder."""
        preflight(self)
        self.enter()
        if self.options.dry_run:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("*/[1-5]-*", "evaluation/*/*"):  # of another run in the same run_dir
            for stale in self.folder.glob(pattern):
                stale.unlink()
        text = OmegaConf.to_yaml(OmegaConf.create(dict(self.config.composed)))
        (self.folder / "config.yaml").write_text(text, encoding="utf-8")
        self.screen.line(f"run    {self.folder}\nstore  {self.store.path}")
        if self.config.brought:
            self.screen.line(self.config.brought)
        refused, left_out = getattr(self.data, "refused", []), getattr(self.data, "left_out", {})
        for refusal in refused[:5]:
            self.screen.line(f"data row left out: {refusal}", "yellow")
        if len(refused) > 5:
            self.screen.line(f"data rows left out: {len(refused):,} in all", "yellow")
        for reason, count in sorted(left_out.items()):
            self.screen.line(f"data rows in no split: {count:,}, {reason}")
        self.tell("run_started", config=self.config.composed)

    def enter(self) -> None:
        """The roles that exist before the first round, and what every key depends on."""
        base = base_model(self.choices["model"])
        self._models = {"base": base, "M0": replace(base, name="M0"), "policy": replace(base, name="M0")}
        self.data_key = self._data_key()

    def next_step(self) -> int:
        """Steps are numbered in the order in which the loop comes to them."""
        self._steps += 1
        return self._steps

    def rounds(self) -> Iterator[Round]:
        """The recipe's rounds in order."""
        return self.choices["recipe"].build().rounds(self.loop_round(), self.options.iterations, self.data)

    def loop_round(self) -> Round:
        """The round that the top-level groups configure."""
        stages: dict[str, Any] = {kind: self.choices[kind] for kind in STAGES}
        stages |= {kind: self.config.lists[kind] for kind in LIST_KINDS if kind.endswith("filters")}
        return Round("loop", **stages)

    # ------------------------------------------------------------------ what keys are made of

    def identity(self, choice: Choice, plugin: Any = None) -> dict[str, Any]:
        """What a plugin contributes to a key: name, source, options, and the files it reads."""
        plugin = plugin or choice.build()
        files = plugin.files(self.files) if hasattr(plugin, "problems") and hasattr(plugin, "files") else ()
        options = plain(choice.config)
        exact = self.options.store.match is Match.exact
        return {
            "name": choice.name,
            "source": source_digest(choice.plugin.target),
            "options": options if exact else without_execution(choice.config, options),
            "files": [file_digest(Path(path)) for path in files],
            **(
                {"members": {n: self.identity(member) for n, member in choice.members.items()}}
                if choice.members
                else {}
            ),
        }

    def _data_key(self) -> str:
        choice = self.choices["data"]
        options = {k: v for k, v in plain(choice.config).items() if not k.endswith("path")}
        files = [file_digest(Path(path)) for path in self.data.files()]
        return digest(choice.name, source_digest(choice.plugin.target), options, files)

    def training_identity(self) -> dict[str, Any]:
        """Model settings that change what training makes."""
        return {"lora": plain(self.model_config)["lora"], "dtype": plain(self.model_config)["dtype"]}

    def execution_parts(self) -> dict[str, Any]:
        """Engine settings, where ``store.match=exact`` makes them part of the keys."""
        if self.options.store.match is Match.content:
            return {}
        engine = self.choices["engine"]
        return {"execution": [engine.name, plain(engine.config), self.options.shard_size]}

    def evaluation_judge(self) -> Choice:
        """The judge that evaluators ask: the loop's own where it asks a language model, else ``evaluation.judge``."""
        own = self.choices["judge"]
        judge = own.plugin.load()
        numbers = getattr(judge, "uses_rewards", False) or hasattr(own.config, "reference")  # no words, no verdicts
        return own if getattr(judge, "uses_model", False) and not numbers else self.options.evaluation.judge

    # ------------------------------------------------------------------ roles

    def role(self, name: str) -> ModelRef:
        """The model that plays a role.

        Raises:
            UserError: no model plays it (yet).
        """
        if name in self._models:
            return self._models[name]
        if Path(name).is_dir():
            return replace(base_model(self.choices["model"], path=name), name=name)
        hint = did_you_mean(name, self._models) or f"at this point there are: {', '.join(self._models)}"
        raise UserError(f"no model plays the role '{name}'; {hint}, or the path of a model folder")

    def policies(self) -> list[str]:
        """The policies made so far, by the paper's names, in order."""
        rewards = {name for name, round in self._made.items() if round.makes_reward}
        return [name for name in self._models if name not in {"base", "policy", "reward"} | rewards]

    def has_role(self, name: str) -> bool:
        """Whether a model plays the role by now."""
        return name in self._models or Path(name).is_dir()

    def seed_prompts(self) -> list[Prompt]:
        """The prompts that exist before the loop."""
        return [row.prompt for row in self.data.split("ift", self.seed)]

    def held_out_prompts(self) -> list[Prompt]:
        """Prompts that must never be trained on."""
        return [row.prompt for name in ("evaluation", "judge_evaluation") for row in self.data.split(name, self.seed)]

    def close_engines(self, wait: bool = True) -> None:
        """Give the engines' memory back."""
        for room in {self.room, self.judge_room}:
            room.release(wait)

    # ------------------------------------------------------------------ around a round

    def begin(self, round: Round) -> tuple[Propose, Sample, Score, Select, Update]:
        """Print which model starts, which is the reference, which judges; return the five stages."""
        stages = (
            Propose(self, round, round.prompt_generator),
            Sample(self, round, round.sampler),
            Score(self, round, round.judge),
            Select(self, round, round.selector),
            Update(self, round, round.optimizer),
        )
        propose, sample, score, _, update = stages
        refers = round.selector.plugin.load().writes is not Demonstration and not round.makes_reward
        writer = f"{sample.choice.name} by {round.makes} in training" if round.online else _by(sample)
        parts = [
            f"prompts {_by(propose)}",
            f"answers {writer}",
            f"judge {_by(score)}",
            f"{round.selector.name} → {round.optimizer.name} from {update.start.name}"
            + (f" (reference {update.reference.name})" if refers else "")
            + (f", with the set of {', '.join(round.train_on)}" if round.train_on else "")
            + (f", replaying {', '.join(update.replayed)}" if update.replayed else ""),
        ]
        self._seconds[round.makes] = 0.0
        self._stage_figures = {}
        self._mark, self.busy_share = (time.perf_counter() - self.room.loading, self.room.busy), None
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

    def seed_demonstrations(self) -> dict[str, Artifact]:
        """The training sets of demonstrations that the rounds before the loop have made, by round."""
        rounds = [round for round in self._made.values() if not round.iteration]
        return {r.name: self._sets[r.name] for r in rounds if r.selector.plugin.load().writes is Demonstration}

    def stage_finished(self, stage: KeyedStage, artifact: Artifact, seconds: float, why_new: str = "") -> None:
        """Tell the user and the lifecycle plugins; link the artifact into the run's folder."""
        figures = artifact.figures
        self._seconds[stage.round.makes] += figures.get("seconds", 0.0)
        self._stage_figures[stage.name] = figures
        if stage.name == "judgements" and (busy := self.room.busy - self._mark[1]):
            self.busy_share = busy / (time.perf_counter() - self.room.loading - self._mark[0])
        if not self.process.tells:
            return
        link(self.folder / stage.round.folder / FOLDERS[stage.name], artifact.folder)
        count = int(figures.get("rows" if stage.name != "model" else "training_rows", 0))
        unit = stage.unit if stage.name != "model" else "rows"
        name = stage.name.replace("_", " ")
        self.screen.stage_done(name, count, unit, seconds, _note(stage.name, figures), artifact.reused)
        if why_new:
            self.screen.line(f"  {'':<20} not in the store: {why_new}", "dim")
        model = stage.model.name if stage.model else stage.round.makes if stage.name == "model" else ""
        self.tell(
            "stage_finished",
            round=stage.round.name,
            iteration=stage.round.iteration,
            stage=stage.name,
            model=model,
            folder=artifact.folder,
            figures=figures,
            reused=artifact.reused,
        )

    def finish(self, round: Round, policy: ModelRef, training: Artifact) -> None:
        """The new model takes its role."""
        self._models[round.makes] = self._models["reward" if round.makes_reward else "policy"] = policy
        self._sets[round.name] = training
        self._made[round.makes] = round
        if self.options.dry_run:
            return
        self.metrics += round_metrics(round.makes, self._stage_figures, self._seconds[round.makes], self.busy_share)

    def nothing_to_train_on(self, round: Round) -> str:
        """Why a round has no training rows, with the numbers and the knobs."""
        verdicts, prompts = self._stage_figures.get("judgements", {}), self._stage_figures.get("prompts", {})
        votes, unreadable = verdicts.get("votes", 0), verdicts.get("unreadable", 0)
        read = (
            f"{1 - unreadable / votes:.1%} of {votes:.0f} verdicts could be read"
            if votes
            else "no verdict was asked for"
        )
        return (
            f"{round.folder}: nothing is left to train on. {prompts.get('rows', 0):.0f} prompts, "
            f"{verdicts.get('rows', 0):.0f} judged answers, {read}, selector '{round.selector.name}' found no row. "
            f"Look at them with 'python -m selfreward show {self.folder} PROMPT_ID'; ways out: another judge or rubric "
            "(judge.rubric=), more answers (sampler.n=), a model that was taught to judge (recipe.eft.source=)"
        )

    # ------------------------------------------------------------------ measuring and the end

    def measure(self, name: str) -> None:
        """Run the evaluators on a model; its figures are artifacts like any other."""
        round = self._made.get(name)
        is_reward = bool(round and round.makes_reward)
        done = measure(self, self.role(name), self._previous, "reward" if is_reward else "policy")
        if not is_reward:
            self._previous = done
        if self.options.dry_run or not self.process.tells:
            return
        self.metrics = list({(m.model, m.evaluator, m.metric): m for m in [*self.metrics, *done.metrics]}.values())
        self._write_metrics()
        self.tell(
            "iteration_finished",
            round=round.name if round else "",
            iteration=round.iteration if round else 0,
            model=name,
            metrics=[m for m in self.metrics if m.model == name],
        )

    def tell(self, what: str, **facts: Any) -> None:
        """Tell lifecycle hooks and monitors of an event, and show what they have to say.

        Raises:
            StageError: a monitor stops the run.
        """
        if not self.process.tells:
            return
        event = Event(self.folder, **facts)
        registry().call(f"selfreward_{what}", event=event)
        findings = [finding for choice, monitor in self.monitors for finding in _hear(choice, monitor, what, event)]
        for finding in findings:
            if finding.severity is not Severity.stop:
                self.screen.line(f"  {finding.severity.value}: {finding.text}", STYLES[finding.severity])
        stops = [finding.text for finding in findings if finding.severity is Severity.stop]
        if stops and what != "run_failed":
            raise StageError("; ".join(stops))

    def measured(self, name: str, artifact: Artifact, seconds: float) -> None:
        """Tell the user that an evaluation is done; link the answers into the run's folder."""
        figures = artifact.figures
        if not figures["rows"] or not self.process.tells:
            return
        unit = "answers" if artifact.key.stage == "answers" else "figures"
        if unit == "answers":
            link(self.folder / "evaluation" / artifact.key.parts["model"][0] / "answers", artifact.folder)
        elif (artifact.folder / "files").is_dir():
            parts = artifact.key.parts
            link(self.folder / "evaluation" / parts["name"] / parts["evaluator"]["name"], artifact.folder / "files")
        self.screen.stage_done(name, int(figures["rows"]), unit, seconds, _note("", figures), artifact.reused)

    @contextmanager
    def system_errors(self) -> Iterator[None]:
        """What the operating system refuses to the store or the run's folder, told with its mend.

        Raises:
            StageError: in place of the refusal, whoever met it.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as problem:
            elsewhere = f"store.path= (now {self.store.path}) or runs_dir= (the run is in {self.folder})"
            if _is_full(problem):
                free = [f"{free_space(path) / 1e6:,.1f} MB free at {path}" for path in (self.store.path, self.folder)]
                raise StageError(
                    f"the disk is full ({problem}): {', '.join(free)}; free some space and give the same command "
                    f"again, it goes on from the last finished shard; or choose another disk with {elsewhere}"
                ) from problem
            if isinstance(problem, OSError):
                raise StageError(
                    f"the operating system refused: {problem}; mend that and give the same command again, it goes on "
                    f"from the last finished shard; or choose another place with {elsewhere}"
                ) from problem
            raise

    def _write_metrics(self) -> None:
        temporary = self.folder / ".metrics.json.tmp"
        rows = [asdict(metric) for metric in self.metrics]
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.folder / "metrics.json")

    def end(self) -> None:
        """Print the table and say where everything is."""
        if self.options.dry_run:
            return self.plan.show(self.screen, Path(self.role("base").path))
        print_summary(self.screen, self.metrics)
        final = self.role("policy")
        self.screen.line(f"\nmetrics      {self.folder / 'metrics.json'}")
        if final.name in self._made:
            self.screen.line(f"{final.name:<12} {self.folder / self._made[final.name].folder / FOLDERS['model']}")
        self.screen.line(f"look at rows python -m selfreward show {self.folder}")
        self.tell("run_finished", metrics=self.metrics)


def _is_full(problem: BaseException | None) -> bool:
    """Whether a full disk is what began it."""
    while problem:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(problem) for words in FULL_DISK):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def _hear(choice: Choice, monitor: Monitor, what: str, event: Event) -> list[Finding]:
    """What a monitor has to say of an event."""
    try:
        return list(getattr(monitor, what)(event))
    except SelfRewardError:
        raise
    except Exception as problem:
        where = f"monitors '{choice.name}' failed at {what} ({event.round or 'run'} {event.stage})".replace(" )", ")")
        if what == "run_failed":  # the failure that is being told of comes first
            return [Finding(Severity.warning, f"{where}: {type(problem).__name__}: {problem}")]
        raise StageError(f"{where}: {type(problem).__name__}: {problem}") from problem


def run_folder(config: RunConfig) -> Path:
    """``runs/<experiment>/<ablation>,<choices>-<signature>``: the same config is the same folder."""
    if config.options.run_dir:
        return Path(config.options.run_dir)
    from selfreward.core.config.compose import default_choices

    named = [config.ablation] if config.ablation else []
    named += [f"{kind}={c.name}" for kind, c in config.choices.items() if c.name != default_choices().get(kind)]
    named += [f"seed={config.options.seed}"]
    settings = {k: v for k, v in config.composed.items() if k not in NOT_THE_EXPERIMENT}
    folder = f"{','.join(named)}-{digest(settings, size=8)}"
    return Path(config.options.runs_dir) / (config.experiment or "default") / folder


def link(at: Path, target: Path) -> None:
    """A relative link into the store; a new one replaces an old one."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary = at.with_name(f".{at.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, at.parent))
    os.replace(temporary, at)


def _by(stage: KeyedStage) -> str:
    return f"{stage.choice.name} by {stage.model.name}" if stage.model else stage.choice.name


def _note(stage: str, figures: Mapping[str, float]) -> str:
    """What is worth knowing about a stage, in a few words."""
    notes = [f"{k.removeprefix('dropped: ')} {v:.0f}" for k, v in figures.items() if k.startswith("dropped: ")]
    if figures.get("votes"):
        notes.append(f"{1 - figures['unreadable'] / figures['votes']:.1%} of the verdicts readable")
    if figures.get("constrained"):
        notes.append(f"{figures['constrained']:.0f} verdicts constrained")
    if figures.get("score_mass") and figures.get("votes"):
        notes.append(f"{figures['score_mass'] / figures['votes']:.0%} of the probability on the scores")
    if stage == "training_set" and figures.get("prompts"):
        notes.append(f"from {figures['rows'] / figures['prompts']:.1%} of the prompts")
    if figures.get("cut_off"):
        notes.append(f"{figures['cut_off']:.0f} cut off at the token limit")
    if figures.get("too_long"):
        notes.append(f"{figures['too_long']:.0f} too long for the context")
    if stage == "model" and "loss" in figures:
        notes.append(f"loss {figures['loss']:.3f}")
    return ", ".join(notes)
