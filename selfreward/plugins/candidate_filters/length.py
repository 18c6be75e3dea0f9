"""Length of answers: those with too few or too many characters are dropped before they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from selfreward import Candidate, Filter, option


@dataclass
class LengthConfig:
    """Options of ``candidate_filters=[length]``."""

    min_chars: int = option(1, ge=0)
    """Fewest characters an answer may have; white space around it does not count."""
    max_chars: int | None = option(None, ge=1)
    """Most characters an answer may have; None = no limit."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.max_chars is not None and self.min_chars > self.max_chars:
            return [f"min_chars={self.min_chars} is above max_chars={self.max_chars}: every answer would be dropped"]
        return []


class Length(Filter):
    """Counts the characters of the answer."""

    config: LengthConfig

    def reason(self, candidate: Candidate) -> str | None:
        """``too short``, ``too long`` or None."""
        count = len(candidate.text.strip())
        if count < self.config.min_chars:
            return "too short"
        return "too long" if self.config.max_chars is not None and count > self.config.max_chars else None
