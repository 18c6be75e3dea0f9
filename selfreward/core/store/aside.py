"""A table that another thread makes while this one reads its shards as they come.

While judge = policy, judging of a shard starts while later shards are still sampled: the engine has the next call
waiting whenever Python is busy with parsing, filters, and files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from selfreward.core.store.artifacts import Artifact


class Aside:
    """Runs ``work`` in a thread; ``finished`` is called in the reader's thread, once, when the table is complete."""

    def __init__(self, artifact: Artifact, work: Callable[[], None], finished: Callable[[], None]) -> None:
        self._artifact, self._work, self._finished = artifact, work, finished
        self._changed = threading.Condition()
        self._ended = False
        self._problem: BaseException | None = None
        artifact.aside = self
        # daemon: Ctrl-C does not wait for a shard; the store takes up unfinished work
        self._thread = threading.Thread(target=self._run, name=artifact.key.stage, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as problem:  # raised in the reader's thread
            self._problem = problem
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def grown(self) -> None:
        """Wake who waits for the shard that was added."""
        with self._changed:
            self._changed.notify_all()

    def indices(self) -> Iterator[int]:
        """0, 1, 2, ... as the shards come.

        Raises:
            Exception: what the thread ended with.
        """
        index = 0
        while True:
            with self._changed:
                while not self._ended and self._artifact.known_shards <= index:
                    self._changed.wait()
                ended = self._ended
            if ended:
                self.join()
                yield from range(index, len(self._artifact.shards))
                return
            yield index
            index += 1

    def join(self) -> None:
        """Wait for the end of the table.

        Raises:
            Exception: what the thread ended with.
        """
        if self._artifact.aside is not self:
            return
        self._thread.join()
        if self._problem:
            raise self._problem
        self._artifact.aside = None
        self._finished()
