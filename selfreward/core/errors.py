"""The two ways a run can end badly, and their exit codes.

Everything else that escapes is a bug in this project and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class SelfRewardError(Exception):
    """Base of the errors that are shown to people as one message, without a traceback."""

    exit_code = 3


class UserError(SelfRewardError):
    """The user's mistake, found before any work: wrong config, missing file, stages that do not fit. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return f"{len(self.problems)} problems:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(self.problems, 1))


class StageError(SelfRewardError):
    """A stage failed at run time: which stage of which round, which plugin, at which row, and why. Exit code 3."""
