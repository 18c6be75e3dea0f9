"""The contracts of the five stages, and of what stands around them.

A plugin is a class built from its config dataclass. It implements one method; slicing, seeds, files, progress and
resume are the core's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from selfreward.core.contracts.data import Data
from selfreward.core.contracts.engine import Completion, Continuations, Likelihood, Request, Sampling
from selfreward.core.contracts.model import ModelConfig, ModelRef
from selfreward.core.contracts.options import role
from selfreward.core.contracts.records import (
    AnsweredPrompt,
    Candidate,
    JudgedPrompt,
    Judgement,
    Prompt,
    TrainingRow,
)
from selfreward.core.text.rubric import Rubric


class StageContext(Protocol):
    """What a stage is given besides its rows."""

    @property
    def model(self) -> str:
        """Role of the model that ``generate`` runs: ``M1``."""
        ...

    @property
    def data(self) -> Data:
        """The run's data."""
        ...

    @property
    def run_seed(self) -> int:
        """The run's ``seed``: what ``data.split(name, seed)`` takes."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Run the model: the completions of each request, in order."""
        ...

    def likelihoods(self, requests: Sequence[Continuations]) -> list[list[Likelihood]]:
        """Ask the model how likely given replies are, in order."""
        ...

    def rewards(self, requests: Sequence[Continuations]) -> list[list[float | None]]:
        """Ask the model, which is a reward model, what given replies are worth, in order; None = it does not fit."""
        ...

    def of(self, model: str) -> StageContext:
        """This context on the model of another role, which is named by the option ``reference`` of the stage."""
        ...

    def seed(self, *ids: str | int) -> int:
        """A seed (below 2**62) that depends on run seed, round, iteration, stage and the given row ids."""
        ...

    def rubric(self, name: str | None = None) -> Rubric:
        """The rubric of that name; None = the one the model declares."""
        ...

    def count(self, **figures: float) -> None:
        """Add to the stage's counters, which are stored and reported (``empty=1``)."""
        ...


class Stage(ABC):  # noqa: B024 - its kinds below have the abstract methods
    """Base of everything that is built from a config dataclass."""

    unit: ClassVar[str] = "row"
    """What may be worked on apart from the rest: ``row``, ``prompt_group`` or ``table``."""
    uses_model: ClassVar[bool] = False
    """Whether the context's model is run; it is the role named by ``config.model`` (default: the policy)."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def models(self) -> tuple[str, ...]:
        """Roles of the models that are run: that of ``context.generate`` first, then those of ``context.of(role)``."""
        return (getattr(self.config, "model", "policy"),) if self.uses_model else ()

    @property
    def sampling(self) -> Sampling:
        """How the model's replies are drawn: the options ``temperature``, ``top_p``, ``top_k``, ``max_new_tokens``."""
        options = vars(self.config)
        names = ("temperature", "top_p", "top_k", "max_new_tokens")
        return Sampling(**{name: options[name] for name in names if name in options})

    def files(self, context: FileContext) -> Sequence[Path]:
        """Files that are read: their content becomes part of the stage's key."""
        return ()

    def problems(self, context: FileContext) -> list[str]:
        """What would go wrong in this run, before any work; each problem with its mend."""
        return []


class FileContext(Protocol):
    """What is known before any work."""

    @property
    def data(self) -> Data:
        """The run's data."""
        ...

    @property
    def model_config(self) -> ModelConfig:
        """Options of the model that is aligned."""
        ...

    def rubric(self, name: str | None = None) -> Rubric:
        """The rubric of that name; None = the one the model declares."""
        ...

    def rubric_path(self, name: str | None = None) -> Path:
        """The rubric's file, for :meth:`Stage.files`."""
        ...


class PromptGenerator(Stage):
    """Stage 1. Writes new prompts, or reads them from data. Its config has ``n``: prompts wanted, None = all."""

    unit = "row"

    @property
    def attempts(self) -> int:
        """Rows tried per wanted prompt, at most: the option ``attempts``, where there is one."""
        return int(getattr(self.config, "attempts", 6))

    def expected(self, data: Data, seed: int) -> int | None:
        """Prompts there will be at most; None where nobody can tell before they are read."""
        return self.config.n

    @abstractmethod
    def propose(self, rows: range, earlier: Sequence[Prompt], context: StageContext) -> Iterable[Prompt | None]:
        """One prompt for each row number, or None where nothing usable came out.

        The core asks for rows 0, 1, 2, ... in slices until ``config.n`` prompts passed the filters, or until this
        yields fewer prompts (or Nones) than rows, or until ``config.attempts`` rows per wanted prompt were tried.
        ``earlier`` holds the prompts accepted so far in this stage. Duplicates and filters are the core's business.
        """


class Sampler(Stage):
    """Stage 2. Writes candidates for prompts."""

    unit = "prompt_group"

    @property
    def n(self) -> int:
        """Answers per prompt: the option ``n``, where there is one."""
        return int(getattr(self.config, "n", 1))

    @abstractmethod
    def sample(self, prompts: Sequence[Prompt], context: StageContext) -> Iterable[Candidate]:
        """The candidates of the prompts, all of one prompt together."""


@dataclass(frozen=True)
class Asking:
    """What a judge asks a model about one answer."""

    rubric: str | None
    """Name of the rubric it asks by; None = the one the model declares."""
    replies: int
    """Replies it writes about one answer, at most; 0 where it only weighs the rubric's scores."""
    tokens: int
    """Tokens a reply may have."""


class Judge(Stage):
    """Stage 3. Scores candidates. What cannot be read is None, never a number."""

    unit = "prompt_group"
    uses_rewards: ClassVar[bool] = False
    """Whether the model it runs is a reward model."""
    needs_references: ClassVar[bool] = False
    """Whether it compares with human answers, and so has no score where nobody answered the prompt."""
    writes_verdicts: ClassVar[bool] = True
    """Whether its model answers in words, so that evaluators may ask it too; False for numbers such as rewards."""

    def asks(self) -> Asking | None:
        """What it asks a model about one answer, for the plan and the check of the context; None: it asks nothing."""
        return None

    @abstractmethod
    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterable[Judgement]:
        """One judgement per candidate, in order."""


class TextMetric(Stage):
    """A number for one answer, such as ROUGE: what ``judge=metric`` adds up. Pure and deterministic."""

    needs_references: ClassVar[bool] = False
    """Whether it compares with human answers; it is never called without one then, and the answer has no score."""

    @abstractmethod
    def __call__(self, prompt: Prompt, answer: str, references: Sequence[str]) -> float | None:
        """The number, the higher the better; None = it cannot tell.

        ``references`` are the human answers to the prompt that people ranked top; none where nobody answered it.
        """


class Selector(Stage):
    """Stage 4. Turns the judged candidates of one prompt into training rows. Pure and deterministic."""

    unit = "prompt_group"
    writes: ClassVar[type[TrainingRow]]

    @abstractmethod
    def select(self, judged: JudgedPrompt) -> Iterator[Any]:
        """Yield rows of type ``writes``."""


@dataclass(frozen=True)
class TrainingSet:
    """The rows an optimizer trains on, of one type."""

    row_type: type[TrainingRow]
    count: int
    read: Callable[[], Iterator[Any]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return self.read()


class Rollouts(Protocol):
    """What an online optimizer learns from: the round's sampler on the model in training, and the round's judge."""

    n: int
    """Answers per prompt (``sampler.n``)."""

    def sample(self, prompts: Sequence[Prompt], weights: Mapping[str, Any], step: int) -> list[AnsweredPrompt]:
        """The sampler's answers, written by the start with these weights in place of its own.

        ``weights`` are whole tensors by the names of the checkpoint's state dict, adapters merged; they are copied
        before this returns. The samples depend on run seed, ``step`` and prompt. Candidates carry their ``token_ids``.
        """
        ...

    def score(self, answered: Sequence[AnsweredPrompt], step: int) -> list[Judgement]:
        """The judge's word on every candidate, in order; a score of None is a verdict that could not be read.

        Raises:
            StageError: a score is no finite number.
        """
        ...


@dataclass(frozen=True)
class TrainingContext:
    """What an optimizer is given besides its rows."""

    start: ModelRef
    """The model training starts from (``optimizer.init_from``)."""
    reference: ModelRef
    """The frozen reference of preference losses (``optimizer.reference``)."""
    out: Path
    """Empty folder for the new checkpoint: safetensors, config, tokenizer with its template."""
    work: Path
    """Folder for the trainer's own files; thrown away when the stage is finished."""
    seed: int
    progress: Callable[[int, int, Mapping[str, float]], None] = field(default=lambda done, total, figures: None)
    """Call with (optimizer steps done, steps in all, figures to show such as ``loss``)."""
    replay: TrainingSet | None = None
    """The demonstrations of the rounds before the loop, for an optimizer that ``replays``."""
    temperature: float = 1.0
    """Sampling temperature of the round's answers: at which policy gradients take log-probabilities."""
    rollouts: Rollouts | None = None
    """Answers and scores made while it trains; there where ``training`` holds :class:`selfreward.Instruction` rows."""
    critic: ModelRef | None = None
    """The model that a value model starts from (``optimizer.critic``); None where the option names none."""
    reference_outputs: Callable[[], Iterator[tuple[Sequence[dict[str, str]], str]]] | None = None
    """(conversation, reply) of the data's demonstrations, on which a reward model's mean is made 0."""


@dataclass
class OptimizerConfig:
    """Options every optimizer has."""

    init_from: str = role("policy")
    """Role of the model that training starts from: policy (the newest), base, M0, sft, M1, ... or a folder."""
    reference: str = role("start", "start")
    """Role of the frozen reference of preference losses and KL penalties; start = the model training starts from."""


class Optimizer(Stage):
    """Stage 5. Trains the next model."""

    unit = "table"
    reads: ClassVar[type[TrainingRow] | tuple[type[TrainingRow], ...]]
    """The row type it trains on, or those it can train on; the selector decides which."""
    makes: ClassVar[str] = "policy"
    """``policy``, or ``reward`` for a sequence-classification checkpoint that takes the role of that name."""
    unfiltered: ClassVar[bool] = False
    """Whether answers must be drawn from the whole distribution (top-p 1, no top-k): policy gradients."""
    least_answers: ClassVar[int] = 1
    """Answers per prompt it needs, where it samples while it trains."""
    config: OptimizerConfig

    @property
    def critic(self) -> str | None:
        """Role of the model that a value model starts from, or ``start``; None where it has no model of its own."""
        return None

    @property
    def replays(self) -> bool:
        """Whether it is given the demonstrations of the rounds before the loop (``context.replay``)."""
        return False

    @property
    def passes(self) -> float:
        """Passes over the rows."""
        return 1.0

    @property
    def checkpoints(self) -> bool:
        """Whether it keeps its training state in ``context.work``, which takes disk."""
        return True

    @abstractmethod
    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train, save into ``context.out``, and return figures (loss, accuracy, ...). Never called with no rows."""


class Filter(Stage):
    """Drops rows: prompts (``prompt_filters``), candidates (``candidate_filters``) or pairs (``pair_filters``)."""

    unit = "table"

    def begin(self, existing: Sequence[Any]) -> None:
        """Called once before the first row, with the rows that exist already (for prompts: the seed prompts)."""

    def held_out(self, prompts: Sequence[Prompt]) -> None:
        """Called after ``begin``, on prompt filters, with the prompts of the evaluation sets."""

    @abstractmethod
    def reason(self, row: Any) -> str | None:
        """Why the row is dropped, in a word or two, or None to keep it."""

    def kept(self, row: Any) -> None:
        """Called for every row that all filters kept, in order."""
