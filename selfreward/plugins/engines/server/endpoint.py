"""Calls to an OpenAI-compatible endpoint: bounded, retried, counted, and kept once they are answered.

The client is ``openai``'s own, with its retries: 408, 409, 429, 5xx, time-outs and lost connections, after 0.5, 1, 2,
4, 8, 8, ... seconds, or when Retry-After says. It runs in an event loop in a thread of its own, so that several threads
may ask at once; at most ``concurrency`` calls of all of them together are under way. When a call fails for good no
further ones are sent, those under way are waited for and kept, and the first error is raised.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import SelfRewardError, StageError, UserError, digest, option
from selfreward.plugins.engines.server.journal import Journal

if TYPE_CHECKING:
    import openai

_NO_ROOM = re.compile(
    r"context.?(length|size|window)|max_model_len|`inputs`.* must|prompt is too long", re.IGNORECASE
)  # vLLM, SGLang, llama.cpp and OpenAI; vLLM; TGI; Anthropic
_LIMITS = ("max_tokens", "max_completion_tokens")
_CONNECT_S = 20.0  # a host that is not there is told before ``timeout_s``, which is for slow models
_EXCERPT = 300  # characters of the server's own words in a message


@dataclass
class ServerConfig:
    """Options of ``engine=server``."""

    base_url: str = option("http://localhost:8000/v1", execution=True)
    """Address of the endpoint, up to and with ``/v1``."""
    model: str | None = None
    """Name of the model on the server; None: the only one that it lists."""
    key_env: str = option("OPENAI_API_KEY", execution=True)
    """Name of the environment variable with the API key; servers on this machine need none."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields for every request, as the server names them (``reasoning_effort: low``); null leaves a field out."""
    concurrency: int = option(32, execution=True, ge=1)
    """Calls under way at once."""
    timeout_s: float = option(600.0, execution=True, gt=0)
    """Seconds to wait for one reply."""
    max_retries: int = option(8, execution=True, ge=0)
    """How often a call that failed is sent again (busy or broken server, time-out, lost connection), with back-off."""
    max_calls_total: int | None = option(None, execution=True, ge=1)
    """Stop when so many calls are in ``cache``; None: no limit."""
    max_tokens_total: int | None = option(None, execution=True, ge=1)
    """Stop when the calls in ``cache`` used so many tokens, prompts included (the calls under way may add to it)."""
    cache: str | None = option(None, execution=True)
    """Folder where finished replies are kept; None: ``.selfreward/server`` in the working folder."""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST: ``read`` takes from the answer what is kept of it (JSON values), and raises what the answer lacks."""

    path: str
    body: dict[str, Any]
    read: Callable[[Any], Any]
    seed: int = 0
    """What tells equal bodies apart, where a server is sent no seed."""
    paid: bool = True
    """Whether it runs the model: kept in the journal and counted."""


class Endpoint:
    """The address, key, limits and journal of one endpoint."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._key = os.environ.get(config.key_env, "").strip()
        self._folder = Path(config.cache or Path(".selfreward", "server"))
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_open(self) -> bool:
        """Between :meth:`open` and :meth:`close`."""
        return self._loop is not None

    def models(self) -> list[dict[str, Any]]:
        """What GET /models lists; nothing where the server has no such list.

        Raises:
            UserError: nothing answers, the key is refused, or this is no such endpoint.
        """
        import openai

        with openai.OpenAI(**self._settings(max_retries=min(2, self._config.max_retries))) as client:
            try:
                text = client.get("/models", cast_to=str)
            except openai.APIStatusError as problem:
                if problem.status_code in (404, 405, 501):
                    return []
                raise UserError(str(self._explained(problem, {}))) from None
            except openai.APIError as problem:
                raise UserError(str(self._explained(problem, {}))) from None
        try:
            return [dict(model) for model in json.loads(text)["data"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"base_url={self._config.base_url} is no OpenAI-compatible endpoint: GET /models answers "
                f"{self._cleaned(text)!r}. The address usually ends in /v1"
            ) from None

    def open(self, model: str) -> None:
        """Get ready for calls to this model."""
        import openai

        self._journal = Journal(self._folder / f"{digest(self._config.base_url, model)}.jsonl")
        self._calls = self._journal.calls
        self._limit_name = _LIMITS[0]
        self._bound = asyncio.Semaphore(self._config.concurrency)
        self._client = openai.AsyncOpenAI(**self._settings(max_retries=self._config.max_retries))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="selfreward-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close connections and journal; calls that are under way are given up. Closing twice is fine."""
        if self._loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._given_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._journal.close()
        self._loop = None

    def ask(self, calls: Sequence[Call], finished: Callable[[int], None] = lambda calls: None) -> list[Any]:
        """What was read from each answer, in order; None where the server's context has no room for the request.

        ``finished`` is called in the caller's thread with 1 for each call that has ended.

        Raises:
            UserError: the server refuses the key, the model, or what is asked for.
            StageError: the server is down, too slow, too busy, or answers nonsense; or a limit is reached.
        """
        if self._loop is None:
            raise RuntimeError("the engine is not open")
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        answers = asyncio.run_coroutine_threadsafe(self._all(calls, ended), self._loop)
        answers.add_done_callback(lambda _: ended.put(0))
        try:
            while count := ended.get():
                finished(count)
        except BaseException:  # Ctrl-C must not wait for a slow server
            answers.cancel()
            raise
        return answers.result()

    async def _given_up(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.close()

    async def _all(self, calls: Sequence[Call], ended: queue.SimpleQueue[int]) -> list[Any]:
        failures: list[Exception] = []

        async def one(call: Call) -> Any:
            async with self._bound:
                if failures:
                    return None
                try:
                    return await self._answered(call)
                except Exception as problem:
                    failures.append(problem)
                finally:
                    ended.put(1)

        answers = await asyncio.gather(*map(one, calls))
        if failures:
            raise failures[0]
        return answers

    async def _answered(self, call: Call) -> Any:
        """From the journal, or from the server and into the journal."""
        if not call.paid:
            return self._read(call, await self._posted(call.path, call.body))[0]
        key = digest(call.path, call.body, call.seed, size=32)
        kept = self._journal.get(key)
        if kept is not None:
            return kept
        self._check_limits()
        self._calls += 1  # now, so that the calls under way count
        text = await self._posted(call.path, call.body)
        if text is None:
            self._calls -= 1
            return None
        reply, tokens = self._read(call, text)
        self._journal.add(key, reply, tokens)
        return reply

    async def _posted(self, path: str, body: dict[str, Any]) -> str | None:
        """The answer's text, or None where the context has no room."""
        import openai

        if self._limit_name not in body and _LIMITS[0] in body:
            body = {self._limit_name if name == _LIMITS[0] else name: value for name, value in body.items()}
        try:
            return await self._client.post(path, body=body, cast_to=str)
        except openai.APIError as problem:
            complaint = problem.response.text if isinstance(problem, openai.APIStatusError) else ""
            if getattr(problem, "status_code", 0) not in (400, 413, 422):
                raise self._explained(problem, body) from None
            if _NO_ROOM.search(complaint):
                shorter = {name: value for name, value in body.items() if name not in _LIMITS}
                # some servers want room for all of max_tokens: what the context holds is less, and enough
                return await self._posted(path, shorter) if shorter != body and "echo" not in body else None
            if _LIMITS[0] in body and _LIMITS[1] in complaint:
                self._limit_name = _LIMITS[1]
                return await self._posted(path, body)
            raise self._explained(problem, body) from None

    def _read(self, call: Call, text: str | None) -> tuple[Any, int]:
        """What the call wants of the answer, and the tokens it used."""
        if text is None:
            return None, 0
        try:
            answer = json.loads(text)
            reply, tokens = call.read(answer), (answer.get("usage") or {}).get("total_tokens")
        except (ValueError, LookupError, TypeError, AttributeError):
            where = call.path if "://" in call.path else self._config.base_url + call.path
            raise StageError(f"{where} answers something that is no reply: {self._cleaned(text)!r}") from None
        if tokens is None and call.paid and self._config.max_tokens_total is not None:
            raise UserError(
                f"max_tokens_total is set, but {self._config.base_url} does not say how many tokens it used"
            )
        return reply, tokens or 0

    def _check_limits(self) -> None:
        spent = {"max_calls_total": self._calls, "max_tokens_total": self._journal.tokens}
        for name, used in spent.items():
            limit = getattr(self._config, name)
            if limit is not None and used >= limit:
                raise StageError(
                    f"{name}={limit} is reached: {self._calls} calls and {self._journal.tokens} tokens so far, by all "
                    f"runs that keep their replies in {self._folder}. Nothing is lost: raise {name} and run again"
                )

    def _settings(self, max_retries: int) -> dict[str, Any]:
        import openai

        patience = self._config.timeout_s
        return {
            "base_url": self._config.base_url,
            "api_key": self._key or "none",
            "timeout": openai.Timeout(patience, connect=min(patience, _CONNECT_S)),
            "max_retries": max_retries,
        }

    def _explained(self, problem: openai.APIError, body: dict[str, Any]) -> SelfRewardError:
        """The client's error as one message for people."""
        import openai

        url, config = self._config.base_url, self._config
        if isinstance(problem, openai.APITimeoutError):
            return StageError(
                f"{url} does not answer within timeout_s={config.timeout_s:g} seconds, also not when it is asked again "
                f"(max_retries={config.max_retries}); raise timeout_s, or lower concurrency={config.concurrency}"
            )
        if not isinstance(problem, openai.APIStatusError):
            cause = self._cleaned(str(problem.__cause__ or problem))
            return StageError(f"{url} cannot be reached ({cause}); is the server running, and is base_url right?")
        status, said = problem.status_code, f"({problem.status_code}): {self._cleaned(_words(problem))}"
        if status in (401, 403):
            return UserError(f"{url} refuses the key in the environment variable {config.key_env} {said}")
        if status == 404:
            return UserError(f"{url} does not know the model {body.get('model')!r}, or base_url is wrong {said}")
        if status == 429:
            return StageError(
                f"{url} is too busy for us, or its quota is used up, also after max_retries={config.max_retries} more "
                f"tries {said}; lower concurrency={config.concurrency}, or raise max_retries"
            )
        if status >= 500:
            return StageError(f"{url} fails, also after max_retries={config.max_retries} more tries {said}")
        return UserError(f"{url} refuses a request {said}{_suspects(body)}")

    def _cleaned(self, text: str) -> str:
        """The server's words on one line, without the key, which some servers repeat."""
        known = text.replace(self._key, "***") if self._key else text
        return " ".join(known.split())[:_EXCERPT]


def _words(problem: openai.APIStatusError) -> str:
    message = problem.body.get("message") if isinstance(problem.body, dict) else None
    return str(message or problem.response.text)


def _suspects(body: dict[str, Any]) -> str:
    """What in the request not every server knows."""
    if "continue_final_message" in body:
        return ". The rubric's reply_prefix asks it to continue a reply that has begun, which not every server can"
    if "structured_outputs" in body:
        return ". It asks for one of a few texts, or for a match of a regex (structured_outputs); not every server can"
    return ""
