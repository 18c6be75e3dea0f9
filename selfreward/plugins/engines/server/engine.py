"""Runs the model behind an OpenAI-compatible endpoint: vLLM, SGLang, TGI, llama.cpp, hosted APIs.

    request k of n  ->  POST /chat/completions {messages, temperature, top_p, max_tokens, stop, seed + k}

One call per sample, because only a seed of its own makes a sample independent of the others. The endpoint's one model
is run, whatever model the engine is opened on, and messages go as messages: the *server* applies its chat template, and
most servers read control tokens that a content spells out (``<|im_end|>``) as control tokens.

- **vLLM** (told by /models) is also asked for its token ids, and told to leave out the filters that the model's
  generation_config.json would add. Of other servers nothing is asked that OpenAI's interface lacks, but for ``top_k``
  where it is set; see ``extra_body``.
- **Without token ids** (every other server) ``Completion.token_ids`` is empty, and such answers are trained on as text.
- ``choices``, ``regex`` and ``reply_prefix`` are asked for as vLLM has them; a server that refuses them, or that writes
  what ``choices`` or ``regex`` do not allow, is an error that says so.
- **Likelihoods** need token ids and the log-probabilities of a prompt (/tokenize; /completions with ``echo``): vLLM.
- **Nothing is paid twice**: each finished reply is kept in ``cache``, keyed by address, model and whole request. A
  killed run asks only for what it does not have, so it goes on with the same bytes although hosted APIs are not
  deterministic. A server's model counts as the same as long as its name is: give new weights a new name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import urlsplit

from selfreward import Completion, Continuations, Engine, Likelihood, ModelRef, Request, Sampling, UserError
from selfreward.plugins.engines.server.endpoint import Call, Endpoint, ServerConfig

_AT_HOME = ("localhost", "127.0.0.1", "::1")
_UNFILTERED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_TEMPLATE_SETTINGS = ("chat_template", "chat_template_kwargs")


class ServerEngine(Engine):
    """See the module's docstring."""

    concurrent = True
    foreign: ClassVar[bool] = True
    """The weights are not those of the model it is opened on."""
    config: ServerConfig

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self._endpoint = Endpoint(config)
        self._served: str | None = config.model
        self._end_of_turn: list[int] = []
        self._spelled: dict[str, list[int]] = {}

    def problems(self, model: ModelRef | None = None) -> list[str]:
        """An address that is none, no client, no key. The server itself is not asked."""
        found = []
        try:
            address = urlsplit(self.config.base_url)
        except ValueError:
            address = urlsplit("")
        if address.scheme not in ("http", "https") or not address.hostname:
            found.append(f"base_url={self.config.base_url}: must be http://... or https://..., and usually ends in /v1")
        elif address.username or address.password or address.query:
            found.append("base_url holds a user, a password or a query; a key is named by its variable: key_env=NAME")
        elif not self._key() and address.hostname not in _AT_HOME:
            found.append(
                f"the environment variable {self.config.key_env} is not set; it holds the key for {address.hostname} "
                "(any text, where the server wants none)"
            )
        if not (self._key().isascii() and self._key().isprintable()):
            found.append(f"the environment variable {self.config.key_env} holds characters that no key has")
        if importlib.util.find_spec("openai") is None:
            found.append("engine=server needs the openai package: pip install 'selfreward[server]'")
        return found

    def served(self) -> str:
        """Name of the model on the server, which is asked where ``model`` does not say it.

        Raises:
            UserError: several models are listed, or none; or the server cannot be asked.
        """
        if self._served is None:
            names = [str(model.get("id")) for model in self._listed]
            if len(names) != 1:
                listed = f"has several models: {', '.join(names)}" if names else "does not list its models"
                raise UserError(f"{self.config.base_url} {listed}; name the one to run: model=NAME")
            [self._served] = names
        return self._served

    def open(self, model: ModelRef) -> None:
        """Ask the server for its list of models once, so that a dead one is told before any work.

        Raises:
            UserError: it cannot be asked, or ``model`` has to be given.
        """
        if not self._endpoint.is_open:
            self._is_vllm = any(listed.get("owned_by") == "vllm" for listed in self._listed)
            self._endpoint.open(self.served())

    @cached_property
    def _listed(self) -> list[dict[str, Any]]:
        """The server's list of models."""
        if problems := self.problems():
            raise UserError(problems)
        return self._endpoint.models()

    def close(self) -> None:
        self._endpoint.close()

    def generate(
        self, requests: Sequence[Request], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Completion]]:
        """The completions of each request, in order; empty ones where the context has no room for a reply.

        Raises:
            UserError: the server refuses or ignores what a request asks for.
            StageError: the server is down, too slow, too busy, or answers nonsense; or a limit is reached.
        """
        seeds = [[request.seed + k for k in range(request.n)] for request in requests]
        calls = [self._call(r, seed) for r, of in zip(requests, seeds, strict=True) for seed in of]
        replies = iter(self._endpoint.ask(calls, finished))
        return [[_completion(next(replies), seed) for seed in of] for of in seeds]

    def likelihoods(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Likelihood]]:
        """How likely each reply is, by the log-probabilities of prompt and reply as one prompt; one call per reply.

        Raises:
            UserError: the server is no vLLM; or its tokenizer adds a space to texts, and a reply is not given as ids.
            StageError: as for :meth:`generate`.
        """
        if not self._is_vllm:
            raise UserError(
                f"{self.config.base_url} is no vLLM server: others give no log-probabilities of a given reply. Choose "
                "a judge that reads written verdicts, or run the model with engine=vllm or engine=transformers"
            )
        prompts = self._tokens([self._turns(r.messages, r.reply_prefix) for r in requests])
        self._spell([text for r in requests for text in r.replies if isinstance(text, str)])
        replies = [[self._ids(reply, r.ended) for reply in r.replies] for r in requests]
        calls = [self._weighing(p, ids) for p, of in zip(prompts, replies, strict=True) for ids in of]
        logprobs = iter(self._endpoint.ask(calls, finished))
        return [[_likelihood(ids, next(logprobs)) for ids in of] for of in replies]

    def _key(self) -> str:
        return os.environ.get(self.config.key_env, "").strip()

    def _call(self, request: Request, seed: int) -> Call:
        """The request for one sample."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.served(),
            **self._turns(request.messages, request.reply_prefix),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
        }
        if self._is_vllm:
            body |= _UNFILTERED | {"return_token_ids": True}
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.choices:
            body["structured_outputs"] = {"choice": list(sampling.choices)}
        elif sampling.regex:
            body["structured_outputs"] = {"regex": sampling.regex}
        body |= self.config.extra_body
        wanted = {name: value for name, value in body.items() if value is not None}
        return Call("/chat/completions", wanted, lambda answer: self._reply(answer, sampling), seed)

    def _turns(self, messages: Sequence[dict[str, str]], reply_prefix: str) -> dict[str, Any]:
        turns = list(messages)
        if not reply_prefix:
            return {"messages": turns}
        turns.append({"role": "assistant", "content": reply_prefix})
        return {"messages": turns, "continue_final_message": True, "add_generation_prompt": False}

    def _reply(self, answer: Any, sampling: Sampling) -> dict[str, Any]:
        """What is kept of an answer: text, token ids and why it ended."""
        choice = answer["choices"][0]
        message, why = choice["message"], choice.get("finish_reason")
        text = message["content"]
        if text is None:  # blocked, or nothing was said after the thinking
            said = [message.get(part) for part in ("refusal", "reasoning", "reasoning_content")]
            if not any(said) and why not in ("length", "content_filter"):
                raise ValueError("no content, and nothing that explains it")
            text = said[0] or ""
        elif not isinstance(text, str):
            raise TypeError("content is no text")
        elif why != "length" and not _obeys(text, sampling):
            raise UserError(
                f"{self.config.base_url} ignores structured_outputs, by which a reply is held to a few texts or a "
                f"regex: it wrote {text[:80]!r}. Run the model with vLLM, or leave the judge unconstrained"
            )
        ids = choice.get("token_ids") or []
        return {"text": text, "token_ids": ids, "finish_reason": "length" if why == "length" else "stop"}

    def _weighing(self, prompt: list[int], reply: list[int]) -> Call:
        """The log-probabilities of the reply's tokens."""
        body = {"model": self.served(), "prompt": prompt + reply, "max_tokens": 0, "echo": True, "logprobs": 0}

        def read(answer: Any) -> list[float]:
            logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
            if len(logprobs) != len(prompt) + len(reply):
                raise ValueError("not one log-probability per token")
            return [float(logprob) for logprob in logprobs[len(prompt) :]]

        return Call("/completions", body, read)

    def _ids(self, reply: str | Sequence[int], ended: bool) -> list[int]:
        if not isinstance(reply, str):
            return list(reply)
        return self._spelled[reply] + (self._end_of_turn if ended else [])

    def _spell(self, texts: Sequence[str]) -> None:
        """Learn the tokens of texts that follow other text, and the token that ends a turn."""
        if texts and not self._end_of_turn:
            turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
            asked = [
                {"messages": turn, "add_generation_prompt": False, "continue_final_message": c} for c in (True, False)
            ]
            started, ended, spelled = self._tokens([*asked, _text("a")])
            shown = self._beside("/detokenize", [{"tokens": spelled * 2}], "prompt")
            if shown != ["aa"] or ended[: len(started)] != started or len(ended) == len(started):
                raise UserError(f"{self.config.base_url}: replies to this model have to be given as token ids")
            self._end_of_turn = ended[len(started) :][:1]
        new = [text for text in dict.fromkeys(texts) if text not in self._spelled]
        self._spelled |= zip(new, self._tokens([_text(text) for text in new]), strict=True)

    def _tokens(self, asked: Sequence[dict[str, Any]]) -> list[list[int]]:
        """Token ids of conversations or texts."""
        settings = {name: self.config.extra_body[name] for name in _TEMPLATE_SETTINGS if name in self.config.extra_body}
        bodies = [body | settings if "messages" in body else body for body in asked]
        return self._beside("/tokenize", bodies, "tokens")

    def _beside(self, path: str, bodies: Sequence[dict[str, Any]], wanted: str) -> list[Any]:
        """Ask what vLLM has beside /v1, not below."""
        url = self.config.base_url.rstrip("/").removesuffix("/v1") + path
        named = [{"model": self.served(), **body} for body in bodies]
        return self._endpoint.ask([Call(url, body, lambda answer: answer[wanted], paid=False) for body in named])


def _text(text: str) -> dict[str, Any]:
    return {"prompt": text, "add_special_tokens": False}


def _completion(reply: dict[str, Any] | None, seed: int) -> Completion:
    return Completion(seed=seed, **(reply or {"text": "", "token_ids": [], "finish_reason": "length"}))


def _likelihood(ids: list[int], logprobs: list[float] | None) -> Likelihood:
    return Likelihood([], []) if logprobs is None else Likelihood(ids, logprobs)


def _obeys(text: str, sampling: Sampling) -> bool:
    """Whether a reply that was not cut off is as it had to be."""
    if sampling.stop:  # it may have been cut
        return True
    if sampling.choices:
        return text in sampling.choices
    with contextlib.suppress(re.error):  # the server's dialect may know more
        return not sampling.regex or re.fullmatch(sampling.regex, text) is not None
    return True
