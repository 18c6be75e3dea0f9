"""The rows that flow between stages: immutable records, one Arrow schema each.

Every row can be traced: a training row names its prompt and candidates, a candidate its model, arm and seed, a
judgement its votes and the judge's own words. Tables are Parquet: ``datasets.load_dataset("parquet", ...)`` reads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from selfreward.core.text.messages import Message

if TYPE_CHECKING:
    import pyarrow as pa


R = TypeVar("R", bound="TrainingRow")


def digest(*parts: Any, size: int = 16) -> str:
    """The first ``size`` hex digits of the sha256 of the parts in canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:size]


@dataclass(frozen=True, slots=True)
class Record:
    """Base of the rows. ``SCHEMA_VERSION`` changes when the fields of the row do."""

    SCHEMA_VERSION: ClassVar[int] = 1

    @classmethod
    def schema(cls) -> pa.Schema:
        """The Arrow schema, with ``selfreward.record`` and ``selfreward.schema_version`` as metadata."""
        import pyarrow as pa

        fields = [
            pa.field(f.name, _arrow_type(str(f.type)), nullable=str(f.type).endswith("None"))
            for f in dataclasses.fields(cls)
        ]
        version = str(cls.SCHEMA_VERSION)
        return pa.schema(fields, {"selfreward.record": cls.__name__, "selfreward.schema_version": version})

    @classmethod
    def table(cls, rows: Iterable[Self]) -> pa.Table:
        """Rows as an Arrow table."""
        import pyarrow as pa

        # dataclasses.asdict would copy every message deeply; rows are immutable, so their own values serve
        names = [f.name for f in dataclasses.fields(cls)]
        return pa.Table.from_pylist([{n: getattr(row, n) for n in names} for row in rows], schema=cls.schema())

    @classmethod
    def rows(cls, table: pa.Table) -> list[Self]:
        """The rows of an Arrow table with this schema."""
        return [cls(**row) for row in table.to_pylist()]


def _arrow_type(annotation: str) -> pa.DataType:
    import pyarrow as pa

    plain = annotation.removesuffix(" | None")
    message = pa.struct(
        [pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)]
    )
    return {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "list[str]": pa.list_(pa.string()),
        "list[int]": pa.list_(pa.int32()),
        "list[float | None]": pa.list_(pa.float64()),
        "list[Message]": pa.list_(message),
    }[plain]


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """An instruction, or a conversation that ends with the user's turn."""

    prompt_id: str
    messages: list[Message]
    source: str
    """Where it comes from: a data split (``ift``) or the model that wrote it (``M1``)."""
    parents: list[str] = field(default_factory=list)
    """Ids of the prompts that were shown as examples when it was written."""

    @classmethod
    def of(cls, messages: str | Sequence[Message], source: str, parents: Iterable[str] = ()) -> Prompt:
        """A prompt whose id is a hash of its messages; a plain string is one user turn."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        return cls(digest([[m["role"], m["content"]] for m in turns]), turns, source, list(parents))

    @property
    def text(self) -> str:
        """The last user turn: what judges are shown as the instruction."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """One answer to a prompt."""

    prompt_id: str
    candidate_id: str
    text: str
    token_ids: list[int]
    """The sampled tokens, end-of-turn token included where it was sampled; empty for human answers."""
    origin: str
    """The arm it comes from: ``human``, or model x demonstrations for prompted generators."""
    model: str
    """Role of the model that wrote it (``M1``), or ``human``."""
    rank: int | None
    """A *human* rank, 0 = best; None where no human ranked it. Never a true score."""
    finish_reason: str
    """``stop`` (the model ended its turn), ``length`` (cut off at the token limit) or ``human``."""
    seed: int

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        text: str,
        k: int,
        *,
        origin: str,
        model: str,
        token_ids: Sequence[int] = (),
        rank: int | None = None,
        finish_reason: str = "stop",
        seed: int = 0,
    ) -> Candidate:
        """The ``k``-th answer of an arm; equal texts keep different ids."""
        identity = digest(prompt.prompt_id, origin, model, k)
        return cls(prompt.prompt_id, identity, text, list(token_ids), origin, model, rank, finish_reason, seed)


@dataclass(frozen=True, slots=True)
class Judgement(Record):
    """What a judge said of one candidate. An unreadable verdict is None: never 0, never the minimum."""

    candidate_id: str
    judge: str
    """Name of the judge plugin."""
    model: str
    """Role of the model that judged (``M1``), or ``-`` where none did."""
    rubric: str
    votes: list[float | None]
    """One entry per verdict that was asked for; None = could not be read."""
    score: float | None
    """The votes' aggregate; None when no vote could be read, or fewer than the judge wants."""
    rationales: list[str]
    """The judge's own words, one per vote."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingRow(Record):
    """Base of the rows a selector may write, in TRL's conversational format.

    A new kind of row is one class, announced by :func:`training_row`.
    """

    KIND: ClassVar[str] = ""
    """The rows' name in messages and exports: ``preferences``."""
    UNIT: ClassVar[str] = "examples"
    """What one row is called where rows are counted: ``pairs``."""
    CANDIDATES: ClassVar[Mapping[str, str]] = {}
    """Field that holds a candidate's id -> what that candidate became: ``{"chosen_id": "chosen"}``."""


TRAINING_ROWS: dict[str, type[TrainingRow]] = {}
"""What selectors write and optimizers read, by :attr:`TrainingRow.KIND`."""


def training_row(row_type: type[R]) -> type[R]:
    """Class decorator: make a row type known by its ``KIND``, to messages, exports and readers of the store."""
    TRAINING_ROWS[row_type.KIND] = row_type
    return row_type


@training_row
@dataclass(frozen=True, slots=True)
class Preference(TrainingRow):
    """One pair for DPO, IPO or a reward model."""

    KIND = "preferences"
    UNIT = "pairs"
    CANDIDATES = MappingProxyType({"chosen_id": "chosen", "rejected_id": "rejected"})
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    chosen_score: float
    rejected_score: float
    chosen_token_ids: list[int]
    """The chosen answer's sampled tokens; empty where it was not sampled (human)."""
    rejected_token_ids: list[int]
    prompt_id: str
    chosen_id: str
    rejected_id: str

    @classmethod
    def of(cls, prompt: Prompt, chosen: ScoredCandidate, rejected: ScoredCandidate) -> Preference:
        """The pair of two judged candidates of one prompt."""
        return cls(
            prompt.messages,
            [_reply(chosen)],
            [_reply(rejected)],
            chosen.score,
            rejected.score,
            chosen.candidate.token_ids,
            rejected.candidate.token_ids,
            prompt.prompt_id,
            chosen.candidate.candidate_id,
            rejected.candidate.candidate_id,
        )


@training_row
@dataclass(frozen=True, slots=True)
class Demonstration(TrainingRow):
    """One answer to imitate."""

    KIND = "demonstrations"
    CANDIDATES = MappingProxyType({"candidate_id": "trained on"})
    prompt: list[Message]
    completion: list[Message]
    score: float
    token_ids: list[int]
    prompt_id: str
    candidate_id: str

    @classmethod
    def of(cls, prompt: Prompt, answer: ScoredCandidate) -> Demonstration:
        """A judged candidate as a demonstration."""
        candidate = answer.candidate
        ids = (prompt.prompt_id, candidate.candidate_id)
        return cls(prompt.messages, [_reply(answer)], answer.score, candidate.token_ids, *ids)


@training_row
@dataclass(frozen=True, slots=True)
class Scored(Demonstration):
    """One answer with its score, for policy gradients."""

    KIND = "scored"


@training_row
@dataclass(frozen=True, slots=True)
class Instruction(TrainingRow):
    """A prompt alone, for an online optimizer: the model in training answers it and a judge scores what it says."""

    KIND = "prompts"
    UNIT = "prompts"
    prompt: list[Message]
    prompt_id: str
    source: str

    @classmethod
    def of(cls, prompt: Prompt) -> Instruction:
        """The prompt as a training row."""
        return cls(prompt.messages, prompt.prompt_id, prompt.source)

    def as_prompt(self) -> Prompt:
        """What a sampler is given."""
        return Prompt(self.prompt_id, self.prompt, self.source)


def row_type_of(schema: pa.Schema) -> type[TrainingRow]:
    """The row type whose rows a stored table holds, by the name in its schema's metadata."""
    name = (schema.metadata or {})[b"selfreward.record"].decode()
    return next(known for known in TRAINING_ROWS.values() if known.__name__ == name)


def row_types(reads: type[TrainingRow] | tuple[type[TrainingRow], ...]) -> tuple[type[TrainingRow], ...]:
    """What an optimizer's ``reads`` names, as a tuple."""
    return reads if isinstance(reads, tuple) else (reads,)


def _reply(answer: ScoredCandidate) -> Message:
    return {"role": "assistant", "content": answer.text}


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt with all of its candidates: the group that shards never split, and what a judge is given."""

    prompt: Prompt
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate whose judgement has a score."""

    candidate: Candidate
    score: float

    @property
    def text(self) -> str:
        """The answer."""
        return self.candidate.text


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A prompt, its candidates and their judgements, in the same order: what a selector is given."""

    prompt: Prompt
    candidates: list[Candidate]
    judgements: list[Judgement]

    def scored(self) -> list[ScoredCandidate]:
        """The candidates that have a score, in the order they were sampled."""
        pairs = zip(self.candidates, self.judgements, strict=True)
        return [ScoredCandidate(c, j.score) for c, j in pairs if j.score is not None]

    def finished_by_score(self) -> list[ScoredCandidate]:
        """The candidates that may be trained on, best first: scored, not cut off, not empty.

        Equal scores keep the order in which they were sampled, so the result is a pure function of the rows.
        """
        finished = [s for s in self.scored() if s.candidate.finish_reason != "length" and s.text.strip()]
        return sorted(finished, key=lambda s: -s.score)
