"""The sha256 of files, each read once: weights are gigabytes, and a run asks for their digest dozens of times.

What is known of a file is known of its stamp: real path, size, inode, and both times of its last change. The system
sets ctime and nobody else can, so a file of the same size whose mtime was put back is read again. A stamp says nothing
while the clock may not have moved since the last change ("racily clean" in git's index): of a file younger than
:data:`YOUNG` nothing is remembered. What is left to believe: that the file system keeps its times to two seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LARGE = 1_000_000
"""Bytes from which a digest is worth a file of its own on disk."""
YOUNG = 2.0
"""Seconds after its last change in which a file may change again without a new stamp; FAT counts in twos."""


class Stamp(NamedTuple):
    """What stays the same as long as a file does."""

    path: str
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The file's stamp at this moment; symbolic links are followed."""
        state = path.stat()
        return cls(os.path.realpath(path), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)

    def is_young(self, now: float) -> bool:
        """Whether the file may still change without another stamp."""
        return now - max(self.mtime_ns, self.ctime_ns) / 1e9 < YOUNG


class Digests:
    """What is known of files: by this process, and in ``folder``, where there is one, by all that share it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._read: dict[Stamp, str] = {}

    def of(self, path: Path) -> str:
        """The sha256 of a file as 64 hex digits, read from it at most once by whoever shares the folder.

        Raises:
            OSError: the file cannot be read.
        """
        stamp = Stamp.of(path)
        known = self._read.get(stamp) or self._recall(stamp)
        if known is None:
            known = self.verified(path)
            if stamp in self._read:
                self._keep(stamp, known)
        return known

    def verified(self, path: Path) -> str:
        """The sha256 of the bytes as this process has read them itself.

        For files with a checksum to hold to: a bit that a disk lost leaves the stamp as it was, so what another process
        once read vouches for nothing.
        """
        now, stamp = time.time(), Stamp.of(path)
        known = self._read.get(stamp)
        if known is None:
            with path.open("rb") as handle:
                known = hashlib.file_digest(handle, "sha256").hexdigest()
            if not stamp.is_young(now) and Stamp.of(path) == stamp:
                self._read[stamp] = known
        return known

    def _entry(self, stamp: Stamp) -> Path | None:
        if self.folder is None or stamp.size < LARGE:
            return None
        return self.folder / hashlib.sha256(os.fsencode(stamp.path)).hexdigest()[:32]

    def _recall(self, stamp: Stamp) -> str | None:
        if entry := self._entry(stamp):
            with suppress(OSError, ValueError, TypeError):  # none yet, or one that a crash of the machine has torn
                *of, known = json.loads(entry.read_text(encoding="utf-8"))
                return known if tuple(of) == stamp else None
        return None

    def _keep(self, stamp: Stamp, known: str) -> None:
        """One small file per digest, renamed into its place: whoever is killed or comes at the same time harms none."""
        if entry := self._entry(stamp):
            with suppress(OSError):  # a full or read-only disk: it will be read again
                entry.parent.mkdir(parents=True, exist_ok=True)
                temporary = entry.with_name(f".{entry.name}.{os.getpid()}.tmp")
                temporary.write_text(json.dumps([*stamp, known]), encoding="utf-8")
                os.replace(temporary, entry)


_ours = Digests()
file_digest, verified_digest = _ours.of, _ours.verified


def remember_in(folder: Path) -> None:
    """From here on digests of large files are shared with other processes and runs, through this folder."""
    _ours.folder = folder
