"""The contract of an engine: how a model is run to write and to weigh text.

A sampler says *what* to sample, an engine says *how* the model is run. Plugins never hold an engine: they hand requests
to ``context.generate`` or ``context.likelihoods``, and the core opens the engine on the right model, shows progress and
counts tokens.

- **Samples**: sample ``k`` of a request draws from a random stream of its own, seeded ``request.seed + k``, so it does
  not depend on what else is in the call: temperature -> top-k -> top-p -> softmax in float32 -> an exponential race
  with float64 noise. Engines that do the same arithmetic draw the same tokens, but for a last bit that differs.
- **Log-probabilities** are the model's own: temperature 1, no top-k, no top-p, natural logarithm, in float32.
- **Tokens and text**: ``token_ids`` are all tokens that were sampled, the end-of-turn token included. A stop text ends
  the reply and is cut from ``text``; the tokens that spelled it stay in ``token_ids``.
- **Constraints**: every engine knows ``choices``; one that cannot hold a reply to a ``regex`` refuses it by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from selfreward.core.contracts.model import ModelRef
from selfreward.core.text.messages import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens.

    ``temperature`` 0 is greedy. The order is temperature, then ``top_k`` (0 = off), then ``top_p`` (1.0 = off).
    ``choices`` constrains the reply to one of a few texts, ``regex`` to a regular expression; at most one of the two.
    ``stop``: the reply ends as soon as its text holds one of these.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256
    choices: tuple[str, ...] = ()
    regex: str = ""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for ``n`` replies to a conversation that ends with a user turn.

    Sample ``k`` is drawn with the seed ``seed + k``, so sample ``k`` of a request equals the only sample of a request
    with that seed. ``reply_prefix`` is text the reply is made to start with: part of the prompt, not of the completion.
    """

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    n: int = 1
    reply_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply: its new text (without control tokens) and its new tokens (with the end-of-turn token, if sampled)."""

    text: str
    token_ids: list[int]
    finish_reason: str
    """``stop``: the model ended its turn, or wrote a stop text; ``length``: cut off at ``max_new_tokens`` or at the end
    of the context."""
    seed: int


@dataclass(frozen=True, slots=True)
class Continuations:
    """Ask how likely given replies to one conversation are.

    A reply is text, encoded as plain text that follows ``reply_prefix``, or token ids as they were sampled. With
    ``ended`` a text is followed by the end-of-turn token, and that token counts.
    """

    messages: Sequence[Message]
    replies: Sequence[str | Sequence[int]]
    reply_prefix: str = ""
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The tokens of one reply and the log-probability of each given all before it; equally many."""

    token_ids: list[int]
    logprobs: list[float]

    @property
    def total(self) -> float:
        """Log-probability of the reply."""
        return sum(self.logprobs)


class Engine(ABC):
    """Runs one model at a time.

    An engine is built from its config dataclass, opened on a model, moved to other models by :meth:`open` again, and
    closed. On CPU float32 the same requests in the same call give the same bytes.
    """

    concurrent: bool = False
    """Whether callers in several threads are let in at once, and gain by it; known once a model is open. What shares a
    batch then depends on time, so it is False where the same bytes are promised (float32 on a CPU)."""

    takes_weights: ClassVar[bool] = False
    """Whether :meth:`open` heeds ``model.weights``: what an online optimizer needs."""

    in_trainers: ClassVar[bool] = True
    """Whether each of several processes that train together can have one: it joins no processes of its own."""

    runs_rewards: ClassVar[bool] = False
    """Whether it can be opened on a sequence-classification checkpoint, for :meth:`rewards`."""

    foreign: ClassVar[bool] = False
    """Whether it runs one model of its own (:meth:`served`), whatever model it is opened on."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def served(self) -> str:
        """The name of the model that a ``foreign`` engine runs; such an engine overrides this."""
        raise TypeError(f"{type(self).__name__} runs the models it is opened on and has none of its own to name")

    def problems(self, model: ModelRef) -> list[str]:
        """What would go wrong with this model, before any work; each problem with its mend. Loads no weights."""
        return []

    @abstractmethod
    def open(self, model: ModelRef) -> None:
        """Load the model's weights and tokenizer, in place of those of a model that is open.

        A model with the key of the open one is open already. Where the new model has the shape of the old one, an
        engine may replace the weights and keep everything else; nothing that was computed with the old weights is used
        again. An engine that ``takes_weights`` takes those of ``model.weights``, where there are any, in place of the
        folder's, and copies them before this returns.

        Raises:
            UserError: the folder cannot be run by this engine; says why and what to do.
        """

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Completion]]:
        """The completions of each request, ``n`` each, in the order of the requests.

        A prompt that leaves no room for a reply in the model's context gives completions without tokens and with
        finish reason ``length``: one long row does not end a run, it is counted (``too_long``) and never trained on.
        ``finished`` is called with the number of completions that have just ended, for the progress bar.

        Raises:
            UserError: a constraint that this engine does not know.
        """

    @abstractmethod
    def likelihoods(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Likelihood]]:
        """How likely each reply of each request is, in order.

        A reply that does not fit into the model's context has no tokens. ``finished`` is called with the number of
        replies that have just been weighed.
        """

    def rewards(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[float | None]]:
        """The reward model's number for each reply of each request, in order; an engine that ``runs_rewards`` has this.

        A reply is read with its end-of-turn token. One that does not fit into the model's context is None.
        """
        raise TypeError(f"{type(self).__name__} runs no reward models")

    @abstractmethod
    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
