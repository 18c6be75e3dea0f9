"""Where rows come from: a file (:mod:`selfreward.formats.files`), a folder of ``save_to_disk``, a name on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import UserError
from selfreward.formats import arrow_rows, files
from selfreward.formats.json_rows import Row, Rows

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """One table."""

    path: str
    """File, folder, or name on the hub."""
    subset: str | None = None
    """Configuration of a data set of the hub."""
    split: str = "train"
    """Split of a saved or hub data set."""

    @property
    def local(self) -> Path:
        """The path of a file or folder."""
        return Path(self.path).expanduser()

    @property
    def is_on_hub(self) -> bool:
        """Whether it can only be a name on the hub."""
        is_name = files.ending(self.local) not in files.ENDINGS and bool(_HUB_NAME.fullmatch(self.path))
        return is_name and not self.local.exists()

    @property
    def is_all_text(self) -> bool:
        """Whether numbers come as text, too."""
        return files.ending(self.local) in (".csv", ".tsv")

    def files(self) -> list[Path]:
        """The files that hold the rows; those in the cache for a name on the hub.

        Raises:
            UserError: a folder or a name on the hub that holds no data set.
        """
        if self.is_on_hub or self.local.is_dir():
            return [Path(file["filename"]) for file in self._dataset().cache_files]
        return [self.local]

    def rows(self, refused: list[str]) -> Rows:
        """The rows, each with its place.

        Args:
            refused: gets a ``place: why`` for every row that cannot be read.

        Raises:
            UserError: nothing can be read: no such file, not what its ending says, another encoding.
        """
        if self.is_on_hub or self.local.is_dir():
            tables = self._dataset().with_format("arrow").iter(batch_size=arrow_rows.BATCH)
            return arrow_rows.numbered(self.path, tables, refused)
        return files.rows(self.local, refused)

    def _dataset(self) -> Dataset:
        found = _hub(self.path, self.subset) if self.is_on_hub else _saved(self.local)
        if not isinstance(found, dict):
            return found
        if self.split not in found:
            where = f"data.path={self.path}" if self.is_on_hub else f"data folder {self.path}"
            raise UserError(f"{where}: no split '{self.split}'; there are: {', '.join(found)}; set data.split=NAME")
        return found[self.split]


def first_row(source: Source) -> Row:
    """The first row that can be read.

    Raises:
        UserError: there is none.
    """
    refused: list[str] = []
    for _, row in source.rows(refused):
        return row
    raise UserError(refused[:1] or f"data file {source.path}: it is empty")


def _saved(folder: Path) -> Any:
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as problem:
        why = str(problem).strip().splitlines()[0]
        raise UserError(f"data folder {folder}: no data set written by save_to_disk ({why})") from None


@lru_cache(maxsize=4)
def _hub(name: str, subset: str | None) -> Any:
    """A data set of the hub, from the cache where it is there."""
    from datasets import load_dataset

    try:
        return load_dataset(name, subset)
    except Exception as problem:  # the client raises many kinds; all mean that the data cannot be had
        why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise UserError(
            f"data.path={name}: no such file or folder, and the hub did not give a data set of that name ({why}); "
            "give a file, or a folder written by save_to_disk"
        ) from None
