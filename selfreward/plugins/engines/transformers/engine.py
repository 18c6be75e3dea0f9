"""Runs any Hugging Face causal language model, in batches, with a random stream of its own for every reply.

What it writes is told in ``continuous_batching`` (which rows are run together), ``draw`` (how a token is drawn),
``slots`` (the cache) and ``causal_lm`` (the model); what it weighs, in ``likelihood``; the numbers that a sequence
classifier gives to replies, in ``reward_model``; and how weights get in, in ``checkpoint``. The prompts of a call are
sorted by length; a beginning that they share and prompts that are equal are run once. What is run together depends on
the requests of a call and on ``max_batch_tokens`` alone, so on a CPU in float32 the same call gives the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfreward import (
    Chat,
    Completion,
    Continuations,
    Engine,
    Likelihood,
    ModelConfig,
    ModelRef,
    Request,
    Sampling,
    StageError,
    UserError,
    option,
)

if TYPE_CHECKING:
    from selfreward.plugins.engines.reply import Reply
    from selfreward.plugins.engines.transformers.causal_lm import CausalLm
    from selfreward.plugins.engines.transformers.reward_model import RewardModel

_SMALL_MODEL = 50_000_000  # parameters below which a second CPU thread costs more than it brings


@dataclass
class TransformersConfig:
    """Options of ``engine=transformers``."""

    max_batch_tokens: int = option(16384, ge=1)
    """Tokens (rows x (prompt + new tokens)) that are run at once; lower it when memory runs out."""
    threads: int | None = option(None, ge=0)
    """CPU threads; None: one for models below 50 M parameters (faster), otherwise as 0: torch's own number."""
    device: str = "auto"
    """Where the model runs: ``cpu``, ``cuda``, ``cuda:1``; auto: a GPU where there is one."""


class TransformersEngine(Engine):
    """See the module's docstring."""

    config: TransformersConfig
    takes_weights = True
    runs_rewards = True

    def __init__(self, config: TransformersConfig) -> None:
        super().__init__(config)
        self._key: str | None = None
        self._origin: tuple[str, ModelConfig] | None = None
        self._open: CausalLm | RewardModel | None = None

    def problems(self, model: ModelRef) -> list[str]:
        """No GPU, no safetensors, or neither a causal language model with a key-value cache nor a reward model."""
        from selfreward.plugins.engines.transformers.checkpoint import model_problems

        return model_problems(model, self.config.device)

    def open(self, model: ModelRef) -> None:
        """Load weights and tokenizer; a model with the key of the open one is open already.

        A model in training takes the place of one of the same folder: its tensors are copied over those that are there.
        """
        import torch

        from selfreward.plugins.engines.transformers.causal_lm import CausalLm
        from selfreward.plugins.engines.transformers.checkpoint import is_reward_model, put
        from selfreward.plugins.engines.transformers.reward_model import RewardModel

        if model.key == self._key:
            return
        if self._open and model.weights is not None and self._origin == (model.path, model.config):
            self._key = None  # until all fit
            put(model.weights, self._open.model)
            self._key = model.key
            return
        self.close()
        if problems := self.problems(model):
            raise UserError(problems)
        device = self.config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._open = (RewardModel if is_reward_model(model) else CausalLm)(model, device)
        small = self._open.device == "cpu" and self._open.size < _SMALL_MODEL
        self._threads: int = self.config.threads if self.config.threads is not None else int(small)
        self._key, self._origin = model.key, (model.path, model.config)

    def close(self) -> None:
        """Drop the model and give its memory back."""
        if self._open is None:
            return
        from selfreward.plugins.engines.transformers.checkpoint import release_memory

        self._open = self._key = None
        release_memory()

    def generate(
        self, requests: Sequence[Request], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Completion]]:
        """The completions of each request, in order; empty ones where the context has no room for a reply.

        Raises:
            UserError: a regular expression is to be held to.
            StageError: the GPU's memory does not hold a batch; the open model is a reward model.
        """
        from selfreward.plugins.engines.transformers.continuous_batching import Writer

        lm = self._lm()
        completions = [[Completion("", [], "length", r.seed + k) for k in range(r.n)] for r in requests]
        for (sampling, continues), replies in self._groups(requests, finished).items():
            writer = Writer(lm, sampling, continues, self.config.max_batch_tokens)

            def ended(some: list[Reply], writer: Writer = writer) -> None:
                for reply in some:
                    completions[reply.request][reply.k] = writer.completion(reply)
                finished(len(some))

            with self._running():
                writer.write(replies, ended)
        return completions

    def likelihoods(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Likelihood]]:
        """How likely each reply of each request is; without tokens where it does not fit into the context.

        Raises:
            StageError: the GPU's memory does not hold a batch; the open model is a reward model.
        """
        from selfreward.plugins.engines.transformers.likelihood import Tokens, weigh

        lm = self._lm()
        weighed = [[Likelihood([], []) for _ in request.replies] for request in requests]
        wanted: dict[Tokens, dict[Tokens, list[tuple[int, int]]]] = {}
        for at, prompt, tokens in _fitting(lm, requests, finished):
            wanted.setdefault(prompt, {}).setdefault(tokens, []).append(at)
        replies = {prompt: set(found) for prompt, found in wanted.items()}
        with self._running():
            for prompt, tokens, logprobs in weigh(lm, replies, self.config.max_batch_tokens):
                for number, place in wanted[prompt][tokens]:
                    weighed[number][place] = Likelihood(list(tokens), list(logprobs))
                finished(len(wanted[prompt][tokens]))
        return weighed

    def rewards(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[float | None]]:
        """What each reply of each request is worth to the open reward model; None where it does not fit.

        A text is read with the end-of-turn token, token ids as they are.

        Raises:
            StageError: the GPU's memory does not hold a batch; the open model is no reward model.
        """
        model = self._reward_model()
        worth: list[list[float | None]] = [[None for _ in request.replies] for request in requests]
        wanted: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for at, prompt, tokens in _fitting(model, requests, finished):
            wanted.setdefault(prompt + tokens, []).append(at)
        with self._running():
            for sequence, reward in model.rewards(wanted, self.config.max_batch_tokens):
                for number, place in wanted[sequence]:
                    worth[number][place] = reward
                finished(len(wanted[sequence]))
        return worth

    def _lm(self) -> CausalLm:
        from selfreward.plugins.engines.transformers.causal_lm import CausalLm

        assert self._open is not None, "open() comes first"
        if not isinstance(self._open, CausalLm):
            raise StageError(
                f"{self._origin[0]} is a reward model, which scores replies and neither writes nor weighs them: name a "
                "language model where text is sampled or judged in words, and this one as judge.model of "
                "judge=reward_model"
            )
        return self._open

    def _reward_model(self) -> RewardModel:
        from selfreward.plugins.engines.transformers.reward_model import RewardModel

        assert self._open is not None, "open() comes first"
        if not isinstance(self._open, RewardModel):
            raise StageError(
                f"{self._origin[0]} is a language model and gives no rewards: name a reward model, a checkpoint whose "
                "config.json says ...ForSequenceClassification (judge.model=reward where a round before has made one)"
            )
        return self._open

    def _groups(
        self, requests: Sequence[Request], finished: Callable[[int], None]
    ) -> dict[tuple[Sampling, bool], list[Reply]]:
        """The replies to write, by what they have in common."""
        from selfreward.plugins.engines.reply import Reply

        lm = self._lm()
        groups: dict[tuple[Sampling, bool], list[Reply]] = {}
        for number, request in enumerate(requests):
            _check(request.sampling)
            prompt = tuple(lm.chat.encode(request.messages, request.reply_prefix))
            if (limit := min(request.sampling.max_new_tokens, lm.context - len(prompt))) < 1:
                finished(request.n)
                continue
            replies = groups.setdefault((request.sampling, bool(request.reply_prefix)), [])
            replies += [Reply(prompt, number, k, request.seed + k, limit) for k in range(request.n)]
        return groups

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """The model's number of threads, no gradients, and a plain word when memory runs out."""
        import torch

        budget, before = self.config.max_batch_tokens, torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode():
                yield
        except torch.OutOfMemoryError:
            raise StageError(
                f"engine.max_batch_tokens={budget} does not fit into the GPU's memory; try {max(1, budget // 2)}"
            ) from None
        finally:
            torch.set_num_threads(before)


def _fitting(
    model: CausalLm | RewardModel, requests: Sequence[Continuations], finished: Callable[[int], None]
) -> Iterator[tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]]:
    """(number of the request and of its reply, prompt, reply) of replies that fit into the context; others are done."""
    for number, request in enumerate(requests):
        prompt = tuple(model.chat.encode(request.messages, request.reply_prefix))
        for place, reply in enumerate(request.replies):
            tokens = _tokens(model.chat, request, reply)
            if tokens and len(prompt) + len(tokens) <= model.context:
                yield (number, place), prompt, tokens
            else:
                finished(1)


def _tokens(chat: Chat, request: Continuations, reply: str | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(reply, str):
        return tuple(reply)
    ids = chat.encode_reply(reply, continues=bool(request.reply_prefix))
    return tuple(ids if request.ended else ids[:-1])


def _check(sampling: Sampling) -> None:
    """Refuse constraints that this engine does not know."""
    if sampling.regex and sampling.choices:
        raise UserError("a reply is held to choices or to a regular expression, not to both")
    if sampling.regex:
        raise UserError("engine=transformers cannot hold a reply to a regular expression; use engine=vllm, or choices")
