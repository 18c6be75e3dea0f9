"""What evaluators share that read a file: a row that cannot be used is told by file and line, and the others count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from selfreward import EvaluationContext, Evaluator, FileContext
from selfreward.formats import files

T = TypeVar("T")


class FileEvaluator(Evaluator):
    """Measures on the rows of one file, the option ``path``."""

    name: ClassVar[str]
    uses_answers = False

    @property
    def path(self) -> Path:
        return Path(self.config.path).expanduser()

    def files(self, context: FileContext) -> list[Path]:
        return [self.path] if self.config.path else []

    def problems(self, context: FileContext) -> list[str]:
        return [
            f"evaluators.{self.name}.path={path}: no such file" for path in self.files(context) if not path.is_file()
        ]

    def read(self, context: EvaluationContext, parse: Callable[[dict[str, Any]], T]) -> list[T]:
        """What ``parse`` makes of the rows; those for which it raises BadRow are told.

        Raises:
            UserError: the file does not open, or has no usable row.
        """
        rows, refused = files.read(self.path, parse)
        tell_left_out(context, refused)
        return rows


def tell_left_out(context: EvaluationContext, left_out: Sequence[str]) -> None:
    """Count the rows that were left out (``rows_left_out``), and leave a list of them beside the figures."""
    if left_out:
        context.count(rows_left_out=len(left_out))
        (context.folder / "left_out.txt").write_text("".join(f"{why}\n" for why in left_out), encoding="utf-8")
