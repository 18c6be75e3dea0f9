"""The contract of an engine: how a model is run to write text.

A sampler says *what* to sample, an engine says *how* the model is run. Plugins never hold an engine: they hand requests
to ``context.generate`` and the core opens the engine on the right model, shows progress and counts tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.core.model import ModelRef
from selfreward.core.records import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens.

    ``temperature`` 0 is greedy. The order is temperature, then ``top_k`` (0 = off), then ``top_p`` (1.0 = off).
    ``choices`` constrains the reply to one of a few texts.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256
    choices: tuple[str, ...] = ()


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
    """``stop``: the model ended its turn; ``length``: cut off at ``max_new_tokens`` or at the end of the context."""
    seed: int


class Engine(ABC):
    """Runs one model at a time.

    An engine is built from its config dataclass, opened on a model, moved to other models by :meth:`open` again, and
    closed. On CPU float32 the same requests in the same call give the same bytes.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def open(self, model: ModelRef) -> None:
        """Load the model's weights and tokenizer; when another model is open, replace it and give its memory back.

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
        """

    @abstractmethod
    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
