"""Length of prompts: those with too few or too many words are dropped.

Source: arXiv:2212.10560 §2.2; the limits are those of its code, which keeps 4 to 150 words.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfreward import Filter, Prompt, option


@dataclass
class LengthConfig:
    """Options of ``prompt_filters=[length]``."""

    min_words: int = option(4, ge=0)
    """Fewest words a prompt may have; words are separated by white space."""
    max_words: int = option(150, ge=1)
    """Most words a prompt may have."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.min_words > self.max_words:
            return [f"min_words={self.min_words} is above max_words={self.max_words}: every prompt would be dropped"]
        return []


class Length(Filter):
    """Counts the words of the last user turn."""

    config: LengthConfig

    def reason(self, prompt: Prompt) -> str | None:
        """``too short``, ``too long`` or None."""
        count = len(prompt.text.split())
        if count < self.config.min_words:
            return "too short"
        return "too long" if count > self.config.max_words else None
