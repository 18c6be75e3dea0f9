"""The store: every finished stage is an artifact under the digest of all that made it.

An artifact is a folder. Shards are written under a temporary name, synced and renamed, and entered in a journal with
their checksums; the manifest comes last, so a folder without one is unfinished work whose whole shards are used again.
What was reused is verified: a file that does not match its checksum is refused by name.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from selfreward.core.contracts.records import Record, TrainingRow, digest, row_type_of
from selfreward.core.errors import StageError
from selfreward.core.store.digests import verified_digest

STAGE_FOLDERS = {"prompts": "1-prompts", "candidates": "2-candidates", "judgements": "3-judgements",
                 "training_set": "4-training_set", "model": "5-model"}  # fmt: skip
"""Stage -> the name under which a round's folder links to its artifact."""

FORMAT = 2
"""Version of the store's layout and of what keys are made of; part of every key. 2: all code that makes the rows."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Key:
    """What an artifact depends on. Equal parts, equal content."""

    stage: str
    """``prompts``, ``candidates``, ``judgements``, ``training_set``, ``model``, ``answers`` or ``metrics``."""
    parts: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """20 hex digits over the store's format, the stage and all parts."""
        return digest(FORMAT, self.stage, self.parts, size=20)


@dataclass(frozen=True)
class Shard:
    """A part of a table: rows of one slice, with the counters of the work that made it."""

    file: str
    sha256: str
    rows: int
    figures: Mapping[str, float] = field(default_factory=dict)
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Reason -> texts of the first rows that the filters dropped for it, shortened; see :class:`Sieve`."""


class Writer(Protocol):
    """Who is writing a table while it is read; see :class:`selfreward.core.store.aside.Aside`."""

    def grown(self) -> None:
        """Take note that a shard was added."""

    def indices(self) -> Iterator[int]:
        """The numbers of the shards, each when it is there."""

    def join(self) -> None:
        """Wait until the table is complete."""


class Artifact:
    """One stage's result: a table in Parquet shards, or the files of a checkpoint."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder = folder
        self.key = key
        self.reused = False
        """Whether it was complete before this process came."""
        self.expected: int | None = None
        """Rows it will have at most, where nothing was worked on (``dry_run``)."""
        self.aside: Writer | None = None
        """The thread that is writing the table, while there is one."""
        self._shards: list[Shard] | None = None

    @classmethod
    def at(cls, folder: Path) -> Artifact:
        """A finished artifact of which no more than the folder is known, as a run's folder links to it."""
        return cls(folder, Key("", {}))

    # ------------------------------------------------------------------ state

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest; None while the artifact is unfinished.

        Raises:
            StageError: it was written by a newer version, or is not a manifest.
        """
        path = self.folder / "manifest.json"
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if (found := int(manifest["format"])) > FORMAT:
                raise StageError(f"{path} has format {found}, this version reads up to {FORMAT}: upgrade selfreward")
            return manifest | {"files": [Shard(**f) for f in manifest["files"]], "figures": dict(manifest["figures"])}
        except (ValueError, KeyError, TypeError):
            raise StageError(f"{path} is damaged; delete the folder {self.folder} and run again") from None

    def is_finished(self) -> bool:
        """Whether the artifact is complete and every file matches its checksum.

        Raises:
            StageError: a file is missing or damaged; names it.
        """
        manifest = self.manifest
        if manifest is None:
            return False
        for shard in manifest["files"]:
            path = self.folder / shard.file
            if not self._is_whole(shard):
                state = "damaged" if path.is_file() else "missing"
                raise StageError(
                    f"{path} is {state} (its checksum is in manifest.json); delete {self.folder} and run again"
                )
        self._tidy()  # a kill may have come between the manifest and this
        return True

    @property
    def figures(self) -> dict[str, float]:
        """The stage's counters: rows, seconds, tokens and its own."""
        manifest = self.manifest
        return manifest["figures"] if manifest else {}

    @property
    def examples(self) -> dict[str, list[str]]:
        """Reason -> texts of the first rows that were dropped for it."""
        examples: dict[str, list[str]] = {}
        for shard in self.shards:
            for reason, texts in shard.examples.items():
                examples.setdefault(reason, []).extend(texts)
        return examples

    @property
    def shards(self) -> list[Shard]:
        """The whole shards: of the manifest, or of the journal while unfinished. A torn or damaged one is left out."""
        if self._shards is None:
            manifest = self.manifest
            self._shards = self._journalled() if manifest is None else manifest["files"]
        return self._shards

    @property
    def known_shards(self) -> int:
        """How many shards this process has seen or written; nothing is read for it."""
        return len(self._shards or ())

    def indices(self) -> Iterator[int]:
        """The numbers of the shards; of a table that a thread is writing, as they come."""
        return self.aside.indices() if self.aside else iter(range(len(self.shards)))

    def _is_whole(self, shard: Shard) -> bool:
        path = self.folder / shard.file
        return path.is_file() and verified_digest(path) == shard.sha256

    def _journalled(self) -> list[Shard]:
        """Shards of the journal whose files are whole; what follows the first that is not is work to do again."""
        journal = self.folder / "journal.jsonl"
        if not journal.exists():
            return []
        *lines, torn = journal.read_text(encoding="utf-8", errors="replace").split("\n")
        whole: list[Shard] = []
        for line in lines:
            try:
                shard = Shard(**json.loads(line))
            except (ValueError, TypeError):
                break
            if not self._is_whole(shard):
                break
            whole.append(shard)
        if torn or len(whole) < len(lines):  # an entry without its line's end would swallow the next one
            _write(journal, "".join(f"{line}\n" for line in lines[: len(whole)]))
        return whole

    # ------------------------------------------------------------------ tables

    def rows(self, record: type[R], shard: int | None = None) -> Iterator[R]:
        """The rows of one shard, or of all in order, one shard in memory at a time."""
        import pyarrow.parquet as pq

        for part in self.shards if shard is None else [self.shards[shard]]:
            yield from record.rows(pq.read_table(self.folder / part.file))

    def row_type(self) -> type[TrainingRow] | None:
        """What the rows of a training set are, as its first shard says; None where it has none."""
        import pyarrow.parquet as pq

        if not self.shards:
            return None
        return row_type_of(pq.read_schema(self.folder / self.shards[0].file))

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def write_shard(
        self,
        record: type[R],
        rows: list[R],
        figures: Mapping[str, float],
        examples: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Add the next shard, whole or not at all."""
        import pyarrow.parquet as pq

        name = f"{len(self.shards):05d}.parquet"
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.tmp"
        pq.write_table(record.table(rows), temporary, compression="zstd")
        _sync(temporary)
        os.replace(temporary, self.folder / name)
        shard = Shard(name, verified_digest(self.folder / name), len(rows), dict(figures), dict(examples or {}))
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(vars(shard)) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.shards.append(shard)
        if self.aside:
            self.aside.grown()

    def finish(self, figures: Mapping[str, float] | None = None, execution: Mapping[str, Any] | None = None) -> None:
        """Write the manifest: from here on the table is complete. Figures default to the sum over the shards."""
        shards = self.shards
        total: dict[str, float] = {}
        for shard in shards:
            for name, value in shard.figures.items():
                total[name] = total.get(name, 0) + value
        total["rows"] = sum(shard.rows for shard in shards)
        self._finish([vars(shard) for shard in shards], total | dict(figures or {}), execution)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what only unfinished work needs."""
        (self.folder / "journal.jsonl").unlink(missing_ok=True)
        shutil.rmtree(self.building[0].parent, ignore_errors=True)

    @property
    def building(self) -> tuple[Path, Path]:
        """Where an unfinished checkpoint is written, and the trainer's own folder."""
        unfinished = self.folder.with_name(self.folder.name + ".partial")
        return unfinished / "out", unfinished / "work"

    def _finish(
        self, files: list[dict[str, Any]], figures: Mapping[str, float], execution: Mapping[str, Any] | None
    ) -> None:
        manifest = {
            "format": FORMAT,
            "key": self.key.hash,
            "stage": self.key.stage,
            "parts": self.key.parts,
            "files": files,
            "figures": dict(figures),
            "execution": dict(execution or {}),
        }
        self.folder.mkdir(parents=True, exist_ok=True)  # a table may have no shard at all
        _write(self.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    # ------------------------------------------------------------------ checkpoints

    def write_folder(self, fill: Callable[[Path, Path], Mapping[str, float]]) -> None:
        """Make a checkpoint: ``fill(out, work)`` writes into ``out``; it appears under its name when all is there."""
        out, work = self.building
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        work.mkdir(exist_ok=True)
        figures = fill(out, work)
        names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
        for name in names:
            _sync(out / name)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(out, self.folder)
        files = [vars(Shard(name, verified_digest(self.folder / name), 0)) for name in names]
        self._finish(files, figures, None)
        self._shards = None
        self._tidy()


class Store:
    """All artifacts of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def artifact(self, key: Key) -> Artifact:
        """The artifact of a key, whether it exists yet or not."""
        return Artifact(self.path / key.stage / key.hash, key)

    @contextmanager
    def lock(self, artifact: Artifact) -> Iterator[None]:
        """Work on an artifact alone. The lock ends with the process that holds it, however that ends."""
        path = self.path / "locks" / f"{artifact.key.stage}-{artifact.key.hash}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def older(self, most: int = 100) -> int:
        """How many finished artifacts of older formats lie here; it stops looking at ``most``.

        Their keys are no longer asked for: they are neither taken for new ones nor deleted.
        """
        found = (path for path in self.path.glob("*/*/manifest.json") if _format(path) < FORMAT)
        return sum(1 for _ in islice(found, most))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _format(manifest: Path) -> int:
    """The format of a manifest, without all that it holds; a damaged one is refused when it is asked for."""
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        found = next(filter(None, (re.match(r' "format": (\d+)', line) for line in lines)), None)
    return int(found[1]) if found else FORMAT
