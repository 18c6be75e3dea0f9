"""What the operating system refuses, told with its mend: a full disk, a folder that is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfreward.core.errors import StageError, UserError
from selfreward.core.run.preflight.disk import free_space

FULL_DISK = (os.strerror(errno.ENOSPC), "unexpected pos", "PytorchStreamWriter failed writing")
"""How libraries not in Python tell of it: safetensors, and ``torch.save``, which only sees that bytes are missing."""


@contextmanager
def system_errors(store: Path, folder: Path) -> Iterator[None]:
    """Around the work of a run with this store and folder.

    Raises:
        StageError: in place of the operating system's refusal, whoever met it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as problem:
        elsewhere = f"store.path= (now {store}) or runs_dir= (the run is in {folder})"
        if _is_full(problem):
            free = [f"{free_space(path) / 1e6:,.1f} MB free at {path}" for path in (store, folder)]
            raise StageError(
                f"the disk is full ({problem}): {', '.join(free)}; free some space and give the same command "
                f"again, it goes on from the last finished shard; or choose another disk with {elsewhere}"
            ) from problem
        if isinstance(problem, OSError):
            raise StageError(
                f"the operating system refused: {problem}; mend that and give the same command again, it goes on "
                f"from the last finished shard; or choose another place with {elsewhere}"
            ) from problem
        raise


def _is_full(problem: BaseException | None) -> bool:
    """Whether a full disk is what began it."""
    while problem:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(problem) for words in FULL_DISK):
            return True
        problem = problem.__cause__ or problem.__context__
    return False
