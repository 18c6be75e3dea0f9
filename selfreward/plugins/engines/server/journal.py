"""Replies that were paid for, kept in one file: a JSON line ``{"key", "tokens", "reply"}`` per finished call.

The core keeps whole shards; this keeps the calls of a shard that did not get finished. Every line is one write to a
file opened for appending, so a killed process loses nothing that had ended, several processes may share a file, and a
line that was torn is skipped. In memory are only the places of the lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Finished replies by key.

    Attributes:
        calls: how many calls the file holds: what was asked through it so far, by whatever process.
        tokens: how many tokens they used.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("ab", buffering=0)
        self._in = path.open("rb")
        self._places: dict[str, int] = {}
        self.calls = self.tokens = 0
        place, line = 0, b"\n"
        for line in self._in:
            self._note(line, place)
            place += len(line)
        if not line.endswith(b"\n"):  # torn: what is added must not become its end
            self._out.write(b"\n")

    def get(self, key: str) -> Any:
        """The reply that was kept under this key, or None."""
        if key not in self._places:
            return None
        self._in.seek(self._places[key])
        return json.loads(self._in.readline())["reply"]

    def add(self, key: str, reply: Any, tokens: int) -> None:
        line = json.dumps({"key": key, "tokens": tokens, "reply": reply}).encode() + b"\n"
        self._out.write(line)
        self._note(line, self._out.tell() - len(line))

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._out.close()
        self._in.close()

    def _note(self, line: bytes, place: int) -> None:
        try:
            entry = json.loads(line)
            key, tokens = entry["key"], int(entry["tokens"])
        except (ValueError, KeyError, TypeError):
            return
        self._places[key] = place
        self.calls += 1
        self.tokens += tokens
