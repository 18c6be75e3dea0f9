"""Prompts with the answers people gave or ranked, divided into what is trained on and what is held out.

All that begins with one first message is a conversation, and a conversation is on one side only:

- held out: ``evaluation``, every prompt once, and ``judge_evaluation``, every comparison that people made;
- ``ranked``: from these comparisons the verdicts for evaluation fine-tuning are made;
- ``ift``: all the rest, prompts with answers to imitate.

Which one depends on hashes of the first message, in lower case and without punctuation. So no seed moves a conversation
(models of several seeds are compared on the same prompts), and neither does another row that is added to the file.
Training prompts that overlap a held-out one are left out (:mod:`selfreward.formats.contamination`).
Source: the seed sets of arXiv:2401.10020 §3.1.1, EFT disjoint from IFT and from what judges are compared on.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from selfreward import AnsweredPrompt, Candidate, Data, Message, Prompt, UserError, option
from selfreward.formats import files
from selfreward.formats.contamination import EvaluationTexts, contaminated, normalised
from selfreward.plugins.data.source import Source, first_row


@dataclass
class HumanDataConfig:
    """Where the rows are, and which part of them is for what."""

    WANTED: ClassVar[str] = "a file"

    path: str = ""
    """File (.jsonl, .json, .csv, .parquet; text also as .gz), folder of save_to_disk, or hub name; required."""
    evaluation_path: str | None = None
    """What is held out, in the same form; None holds out the share `evaluation` of `path`."""
    split: str = "train"
    """Split that is read of a folder of save_to_disk or of a hub name."""
    subset: str | None = None
    """Configuration of a hub name."""
    evaluation: float = option(0.1, ge=0)
    """Conversations held out for evaluation, chosen by their hash: a share if below 1, a number otherwise."""
    ranked: float = option(0.0, ge=0)
    """Of the others with ranked answers, those that EFT verdicts are made from, not `ift`: a share, or a number."""
    overlap: int = option(13, ge=0)
    """Words in a row with a held-out prompt from which on a training prompt is left out; 0 compares whole prompts."""

    def problems(self) -> Iterator[str]:
        """A path that is not given."""
        if not self.path.strip():
            yield f"path is not set; give {self.WANTED}"


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answers people gave to it, or compared, in one place of the data."""

    messages: list[Message]
    answers: list[tuple[int, str]]
    """(rank, text), lowest rank = best."""
    compared: bool = False
    """Whether people said how good the answers are beside each other; equal ranks are a tie then."""
    topic: str = ""
    """What stands for the first message where several prompts are of one task."""

    @cached_property
    def conversation(self) -> str:
        """What all exchanges of a conversation have in common."""
        return normalised(self.topic or next(m["content"] for m in self.messages if m["role"] == "user"))

    @property
    def asked(self) -> str:
        """Everything the user says."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def is_ranked(self) -> bool:
        """Whether people preferred one of the answers to another."""
        return self.compared and len({rank for rank, _ in self.answers}) > 1


class HumanData(Data):
    """Base of the readers: they say what a table holds (:meth:`exchanges`); this says what is done with it."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Columns that every row has."""

    config: HumanDataConfig

    def __init__(self, config: HumanDataConfig) -> None:
        super().__init__(config)
        self.refused: list[str] = []
        """``file:line: why`` of the rows that cannot be used, once a split was read."""
        self.left_out: Counter[str] = Counter()
        """How many rows are sound and yet in no split, by reason, once a split was read."""

    def leave_out(self, reason: str, rows: int = 1) -> None:
        """Count rows that are sound and yet in no split."""
        if rows:
            self.left_out[reason] += rows

    @abstractmethod
    def exchanges(self, source: Source, refused: list[str]) -> list[Exchange]:
        """All exchanges of a table, in its order; ``refused`` gets the places of the rows that cannot be used."""

    def sources(self) -> list[Source]:
        """The tables that are read, by the options that name them."""
        paths = [self.config.path, self.config.evaluation_path]
        return [self.source(path) for path in paths if path]

    def source(self, path: str) -> Source:
        """A table, by the options that hold for all."""
        return Source(path, self.config.subset, self.config.split)

    def files(self) -> list[Path]:
        """Every file that is read; of a name on the hub its files in the cache."""
        return [file for source in self.sources() for file in source.files()]

    def problems(self) -> list[str]:
        """Files that are missing or hold no row that can be read, and columns that the first row does not have."""
        try:
            found = super().problems()
        except UserError as problem:
            return problem.problems
        for source in [] if found else self.sources():
            try:
                found += [f"data file {source.path}: {p}" for p in self.missing(source, first_row(source))]
            except UserError as problem:
                found += problem.problems
        return found

    def missing(self, source: Source, first: dict[str, Any]) -> list[str]:
        """What a table's first row lacks."""
        lacking = [f"'{column}'" for column in self.columns if column not in first]
        mend = f"there are: {', '.join(first) or 'none'}; any other table is read by data=table"
        return [f"no column {', '.join(lacking)}; {mend}"] if lacking else []

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """``ift``, ``ranked``, ``evaluation`` or ``judge_evaluation``; the same rows for every seed.

        A prompt occurs once; only in ``judge_evaluation`` it occurs as often as its answers were compared.

        Raises:
            UserError: a file is missing, or not one of its rows can be used.
        """
        return self._splits.get(name, [])

    @cached_property
    def _splits(self) -> dict[str, list[AnsweredPrompt]]:
        held_out, training = self._divided
        training = self.clean(training)
        ranked = _chosen((e.conversation for e in training if e.is_ranked), self.config.ranked, "ranked")
        to_judge = [e for e in training if e.is_ranked and e.conversation in ranked]
        rest = [e for e in training if e.conversation not in ranked]
        self.leave_out("without ranks, in a conversation of `ranked`", len(training) - len(to_judge) - len(rest))
        has_best = [e for e in rest if not e.answers or min(e.answers)[0] == 0]
        self.leave_out("without the best reply", len(rest) - len(has_best))
        return {
            "ift": self._once(has_best, "ift"),
            "ranked": self._once(to_judge, "ranked"),
            "evaluation": answered(_first(held_out), "evaluation"),
            "judge_evaluation": answered([e for e in held_out if e.compared], "judge_evaluation"),
        }

    @cached_property
    def _divided(self) -> tuple[list[Exchange], list[Exchange]]:
        """What is held out, and what may be trained on."""
        rows = self.read(self.config.path)
        if self.config.evaluation_path:
            held_out = self.read(self.config.evaluation_path)
            apart = {e.conversation for e in held_out}
        else:
            apart = _chosen((e.conversation for e in rows), self.config.evaluation, "held out")
            held_out = [e for e in rows if e.conversation in apart]
        training = [e for e in rows if e.conversation not in apart]
        if self.config.evaluation_path:
            self.leave_out("a conversation of evaluation_path", len(rows) - len(training))
        return held_out, training

    def read(self, path: str) -> list[Exchange]:
        """All exchanges of a table.

        Raises:
            UserError: there is none.
        """
        refused: list[str] = []
        found = self.exchanges(self.source(path), refused)
        self.refused += refused
        if not found:
            raise files.none_usable(path, refused)
        return found

    @cached_property
    def _held_out_texts(self) -> EvaluationTexts:
        return EvaluationTexts((e.asked for e in self._divided[0]), self.config.overlap)

    def clean(self, training: list[Exchange]) -> list[Exchange]:
        """What overlaps no held-out prompt; the rest is counted in ``left_out``."""
        reasons = contaminated((e.asked for e in training), self._held_out_texts)
        self.left_out.update(f"{reason} as a held-out prompt" for reason in reasons if reason)
        return [e for e, reason in zip(training, reasons, strict=True) if not reason]

    def _once(self, exchanges: list[Exchange], name: str) -> list[AnsweredPrompt]:
        first = _first(exchanges)
        self.leave_out("another comparison of a prompt", len(exchanges) - len(first))
        return answered(first, name)


class RowByRow(HumanData):
    """Base of the readers whose rows stand alone: they say what one row holds."""

    @abstractmethod
    def exchange(self, row: dict[str, Any]) -> Iterable[Exchange]:
        """The exchanges of a row.

        Raises:
            BadRow: it cannot be used.
        """

    def exchanges(self, source: Source, refused: list[str]) -> list[Exchange]:
        return [found for _, found in files.parsed(source.rows(refused), self.exchange, refused)]


def _chosen(keys: Iterable[str], share: float, purpose: str) -> set[str]:
    """A share of the keys, or a number of them, by where their hash falls in [0, 1)."""
    places = {key: int(hashlib.sha256(f"{purpose}: {key}".encode()).hexdigest()[:16], 16) / 16**16 for key in keys}
    if share >= 1:
        return set(sorted(places, key=lambda key: places[key])[: round(share)])
    return {key for key, place in places.items() if place < share}


def _first(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """The first exchange of each prompt."""
    by_prompt: dict[tuple[tuple[str, str], ...], Exchange] = {}
    for exchange in exchanges:
        by_prompt.setdefault(tuple((m["role"], m["content"]) for m in exchange.messages), exchange)
    return list(by_prompt.values())


def answered(exchanges: Iterable[Exchange], source: str) -> list[AnsweredPrompt]:
    """The exchanges as rows, the best answer first; all answers to one prompt are numbered on, so that ids differ."""
    how: dict[str, Any] = {"origin": "human", "model": "human", "finish_reason": "human"}
    groups, answers = [], Counter[str]()
    for exchange in exchanges:
        prompt = Prompt.of(exchange.messages, source)
        before = answers[prompt.prompt_id]
        ordered = sorted(exchange.answers, key=lambda answer: answer[0])
        numbered = enumerate(ordered, before)
        groups.append(
            AnsweredPrompt(prompt, [Candidate.of(prompt, t, k, rank=rank, **how) for k, (rank, t) in numbered])
        )
        answers[prompt.prompt_id] += len(ordered)
    return groups
