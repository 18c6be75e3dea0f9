"""Several threads, one batch: whoever waits for vLLM drives it.

vLLM's offline engine has no thread of its own: it moves when somebody calls ``step()``, which runs one forward pass for
all requests it holds (continuous batching, arXiv:2309.06180 §4.3). Every caller puts its jobs into an inbox; one of
those who wait becomes the driver, takes the inbox in and steps, and hands what has ended to its owners. A driver with
news of its own lets the next one drive on, so the engine never idles while anybody has work, and a single caller pays
for no second thread. Adding, stepping and aborting happen in the driver alone: the engine is not thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from selfreward import StageError, UserError

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to run: the prompt's token ids and what to do after them (with ``n`` = 1)."""

    prompt: list[int]
    params: SamplingParams
    request: int
    """Which of the caller's requests it belongs to; the jobs of one request run on the same replica."""


@dataclass(slots=True, eq=False)
class _Call:
    """What became of the jobs of one caller."""

    outputs: list[Any]
    news: list[int] = field(default_factory=list)
    problem: Exception | None = None


class Driver:
    """The one way to an engine, for any number of threads.

    ``fresh_start`` is called before jobs are added to an engine that has none.
    """

    def __init__(self, engine: LLMEngine, fresh_start: Callable[[], object] = lambda: None) -> None:
        self._engine = engine
        self._fresh_start = fresh_start
        self._turn = threading.Condition()
        self._driving = False
        self._calls: set[_Call] = set()
        self._inbox: list[tuple[_Call, int, Job]] = []
        self._dropped: list[str] = []
        self._owners: dict[str, tuple[_Call, int]] = {}
        self._names = map(str, count())
        self.broken: BaseException | None = None
        """What stopped the engine in the middle of a step: it has to be started again."""

    def run(self, jobs: Sequence[Job], finished: Callable[[list[int]], None]) -> list[RequestOutput]:
        """Run jobs to their end, together with those of other callers.

        ``finished`` gets the positions of jobs that have just ended, in the caller's own thread.

        Returns:
            vLLM's final output of each job, in order.

        Raises:
            UserError: vLLM refuses a job.
            StageError: the engine failed.
        """
        call = _Call([None] * len(jobs))
        left = len(jobs)
        with self._turn:
            self._calls.add(call)
            self._inbox += [(call, position, job) for position, job in enumerate(jobs)]
        try:
            while left:
                ended = self._wait(call)
                left -= len(ended)
                finished(ended)
            return call.outputs
        finally:
            self._leave(call)

    def _wait(self, call: _Call) -> list[int]:
        """Drive, or let another caller drive, until jobs of this call have ended."""
        with self._turn:
            while not call.news:
                if call.problem is not None:
                    raise UserError(f"vLLM refuses a request: {call.problem}") from call.problem
                if self.broken is not None:
                    said = f"{type(self.broken).__name__}: {self.broken}".rstrip(": ")
                    raise StageError(f"engine=vllm stopped: {said}") from self.broken
                if self._driving:
                    self._turn.wait()
                else:
                    self._step()
            ended, call.news = call.news, []
            return ended

    def _step(self) -> None:
        """Let the engine move once, without the lock, and hand out what has ended."""
        inbox, self._inbox = self._inbox, []
        outputs: list[Any] = []
        self._driving = True
        self._turn.release()
        try:
            self._abort_dropped()
            self._admit(inbox)
            if self._owners:
                outputs = self._engine.step()
        except BaseException as problem:
            self.broken = problem
            if not isinstance(problem, Exception):  # Ctrl-C in the middle of a step
                raise
        finally:
            self._turn.acquire()
            self._driving = False
            self._hand_out(outputs)

    def _admit(self, inbox: Sequence[tuple[_Call, int, Job]]) -> None:
        from vllm.exceptions import VLLMClientError

        if inbox and not self._owners:
            self._fresh_start()
        for call, position, job in inbox:
            if call.problem is not None:
                continue
            name = next(self._names)
            try:
                self._engine.add_request(name, {"type": "token", "prompt_token_ids": job.prompt}, job.params)
            except (
                VLLMClientError,
                ValueError,
            ) as problem:  # about this job; its caller gives up the others
                call.problem = problem
            else:
                self._owners[name] = call, position

    def _hand_out(self, outputs: Sequence[Any]) -> None:
        for output in outputs:
            if output.finished and (owner := self._owners.pop(output.request_id, None)):
                call, position = owner
                call.outputs[position] = output
                call.news.append(position)
        if self.broken is not None or any(call.news or call.problem for call in self._calls):
            self._turn.notify_all()  # the owners, and whoever drives on if the driver is one of them

    def _leave(self, call: _Call) -> None:
        """Forget a call; jobs of it that still run are aborted."""
        with self._turn:
            self._calls.discard(call)
            self._inbox = [entry for entry in self._inbox if entry[0] is not call]
            self._dropped += [name for name, (owner, _) in self._owners.items() if owner is call]
            if self._dropped and not self._driving and self.broken is None:
                self._abort_dropped()

    def _abort_dropped(self) -> None:
        dropped, self._dropped = self._dropped, []
        self._engine.abort_request(dropped)
        for name in dropped:
            self._owners.pop(name, None)


class Replicas:
    """Data parallelism: several engines, each with its share of a caller's requests."""

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self._drivers = drivers

    @property
    def broken(self) -> bool:
        """Whether an engine has failed."""
        return any(driver.broken for driver in self._drivers)

    def run(self, jobs: Sequence[Job], finished: Callable[[list[int]], None]) -> list[RequestOutput]:
        """As :meth:`Driver.run`; ``finished`` is called by one thread at a time."""
        if len(self._drivers) == 1:
            return self._drivers[0].run(jobs, finished)
        outputs: list[Any] = [None] * len(jobs)
        one_at_a_time = threading.Lock()
        given_up = threading.Event()

        def work(replica: int) -> None:
            mine = [p for p, job in enumerate(jobs) if job.request % len(self._drivers) == replica]

            def ended(positions: list[int]) -> None:
                if given_up.is_set():
                    raise StageError("engine=vllm: another replica stopped")
                with one_at_a_time:
                    finished([mine[p] for p in positions])

            for position, output in zip(mine, self._drivers[replica].run([jobs[p] for p in mine], ended), strict=True):
                outputs[position] = output

        with ThreadPoolExecutor(len(self._drivers)) as threads:
            try:
                for future in as_completed([threads.submit(work, replica) for replica in range(len(self._drivers))]):
                    future.result()
            except BaseException:
                given_up.set()  # the others stop as soon as they look up
                raise
        return outputs
