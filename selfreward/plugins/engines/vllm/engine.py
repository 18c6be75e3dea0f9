"""Runs a model with vLLM (paged attention, continuous batching, prefix caching; arXiv:2309.06180), in this process.

Prompts go in as token ids, replies come out as token ids: vLLM sees neither the chat template nor text, except where it
watches for a stop text. Every sample is a sequence of its own with the seed ``seed + k``, so that several threads can
share one batch (:mod:`.vllm_driver`). On a CPU the draw is the one of engine=transformers; on a GPU vLLM's kernels have
random streams of their own, seeded alike. The next policy of the same shape, or the tensors of one in training, take
the place of the weights alone (:mod:`.vllm_reload`).

A likelihood is read off the raw model where replies are short and share their beginnings (one generated token for every
beginning, the prompt coming from the prefix cache), and off the prompt's log-probabilities where they are long.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import (
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
from selfreward.plugins.engines.vllm.constraint import constraint
from selfreward.plugins.engines.vllm.driver import Driver, Job, Replicas
from selfreward.plugins.engines.vllm.likelihood import logprobs, questions
from selfreward.plugins.engines.vllm.preflight import device_problems, gpus, model_problems, package_problems

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import LLM, RequestOutput, SamplingParams

_COLDEST = 0.01  # vLLM's lowest temperature, but for 0


@dataclass
class VllmConfig:
    """Options of ``engine=vllm``."""

    tensor_parallel: int = option(1, ge=1, execution=True)
    """GPUs that share every layer of the model."""
    data_parallel: int = option(1, ge=1, execution=True)
    """Copies of the model, each on ``tensor_parallel`` GPUs of its own, that share the requests."""
    gpu_memory_utilization: float = option(0.9, gt=0, le=1, execution=True)
    """Share of a GPU's memory that vLLM takes for weights, activations and key-value cache."""
    kv_cache_gib: float = option(1.0, gt=0, execution=True)
    """Size of the key-value cache on a CPU, in GiB."""
    max_model_len: int | None = option(None, ge=2)
    """Context in tokens; None: the model's own. Less leaves more room for sequences side by side."""
    max_num_seqs: int | None = option(None, ge=1, execution=True)
    """Sequences that run at once; None: vLLM's choice for the device."""
    max_num_batched_tokens: int | None = option(None, ge=1, execution=True)
    """Tokens of one forward pass; None: vLLM's choice for the device."""
    enforce_eager: bool | None = option(None, execution=True)
    """Neither compile nor capture CUDA graphs: starts faster, runs slower; None: eager on a CPU only."""


class VllmEngine(Engine):
    """See the module's docstring."""

    takes_weights = True
    in_trainers = False  # a driver of torch.distributed itself, it would end the process group of the trainers
    config: VllmConfig

    def __init__(self, config: VllmConfig) -> None:
        super().__init__(config)
        self._key: str | None = None
        self._origin: tuple[str, ModelConfig] | None = None
        self._shape: Any = None
        self._engines: list[LLM] = []
        self._replicas = Replicas([])

    def problems(self, model: ModelRef) -> list[str]:
        """Missing or clashing packages, too few GPUs, and what ``config.json`` says that vLLM cannot run."""
        return [
            *package_problems(),
            *device_problems(self.config.tensor_parallel, self.config.data_parallel),
            *model_problems(model, self.config.max_model_len),
        ]

    def open(self, model: ModelRef) -> None:
        """Put the weights in place of those of a model of the same shape, or start vLLM anew."""
        if model.key == self._key and not self._replicas.broken:
            return
        from selfreward.plugins.engines.vllm.reload import in_training, shape

        origin = (model.path, model.config)
        if model.weights is not None and origin == self._origin:  # the model that is open, a step later
            chat, found = self._chat, self._shape
        elif problems := self.problems(model):
            raise UserError(problems)
        else:
            chat = model.chat()
            found = shape(model, chat)
        weights = None if model.weights is None else in_training(model)
        if found is None or found != self._shape or not self._reload(model.path, weights):
            self.close()
            self._launch(model)
            if weights is not None and not self._reload(model.path, weights):
                raise StageError(f"engine=vllm: vLLM cannot take the weights in training of {model.path}; see its log")
        self._chat, self._shape, self._origin, self._key = chat, found, origin, model.key
        self.concurrent = gpus() > 0
        self._stops = sorted(i for i in chat.stop_ids if i < self._engines[0].model_config.get_vocab_size())

    def close(self) -> None:
        engines, self._engines = self._engines, []
        self._replicas = Replicas([])
        self._key = self._shape = self._origin = None
        if engines:
            from selfreward.plugins.engines.vllm.launch import shut_down

            shut_down(engines)

    def generate(
        self, requests: Sequence[Request], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Completion]]:
        """The completions of each request, in order; empty ones where the context has no room for a reply.

        Raises:
            UserError: a temperature, regex or choice that vLLM does not take.
            StageError: vLLM failed.
        """
        replies = [[Completion("", [], "length", r.seed + k) for k in range(r.n)] for r in requests]
        places: list[tuple[int, int]] = []
        jobs: list[Job] = []
        settings: dict[tuple[Sampling, bool], SamplingParams] = {}
        for number, request in enumerate(requests):
            prompt = self._chat.encode(request.messages, request.reply_prefix)
            room = self._context - len(prompt)
            if room < 1:
                finished(request.n)
                continue
            kind = request.sampling, bool(request.reply_prefix)
            params = settings.get(kind) or settings.setdefault(kind, self._params(*kind))
            for k in range(request.n):
                mine = copy.copy(params)
                mine.seed = request.seed + k
                mine.max_tokens = min(request.sampling.max_new_tokens, room)
                places.append((number, k))
                jobs.append(Job(prompt, mine, number))
        for (number, k), output in zip(places, self._run(jobs, lambda ended: finished(len(ended))), strict=True):
            replies[number][k] = self._completion(requests[number], k, output)
        return replies

    def likelihoods(
        self, requests: Sequence[Continuations], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Likelihood]]:
        """How likely each reply of each request is, in order; no tokens where a reply does not fit.

        Raises:
            StageError: vLLM failed.
        """
        prompts = [self._chat.encode(request.messages, request.reply_prefix) for request in requests]
        replies = [self._replies(r, self._context - len(prompt)) for r, prompt in zip(requests, prompts, strict=True)]
        asked = [(number, question) for number, group in enumerate(replies) for question in questions(group)]
        jobs = [Job([*prompts[number], *question.start], question.params(), number) for number, question in asked]
        waiting = Counter(number for number, _ in asked)
        finished(sum(len(group) for number, group in enumerate(replies) if not waiting[number]))

        def ended(positions: Sequence[int]) -> None:
            numbers = [asked[position][0] for position in positions]
            waiting.subtract(numbers)
            finished(sum(len(replies[number]) for number in set(numbers) if not waiting[number]))

        answers: list[dict[tuple[int, ...], list[float]]] = [{} for _ in requests]
        for (number, question), output in zip(asked, self._run(jobs, ended), strict=True):
            answers[number] |= question.answers(output)
        return [
            [Likelihood(list(reply), logprobs(reply, found)) for reply in group]
            for group, found in zip(replies, answers, strict=True)
        ]

    def _launch(self, model: ModelRef) -> None:
        """Start vLLM, once for each replica."""
        from selfreward.plugins.engines.vllm import launch as start

        config = self.config
        options = {
            "tensor_parallel_size": config.tensor_parallel,
            "max_model_len": config.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "dtype": _dtype(model),
        }
        options |= start.options_here(config.kv_cache_gib, config.gpu_memory_utilization, config.enforce_eager)
        try:
            for replica in range(config.data_parallel):
                devices = start.devices(replica, config.tensor_parallel) if config.data_parallel > 1 else {}
                self._engines.append(start.launch(model.path, separate=not self._in_this_process, **options, **devices))
        except Exception as problem:
            self.close()
            raise UserError(f"{model.path}: vLLM cannot be started on it: {problem}") from problem
        self._replicas = Replicas([Driver(e.llm_engine, start.forgetting(e)) for e in self._engines])
        self._context: int = self._engines[0].model_config.max_model_len
        self._threads = start.threads(model) if self._in_this_process else 0

    def _reload(self, path: str, weights: Mapping[str, Tensor] | None) -> bool:
        """Exchange the weights of the running engines, for these or those of a folder; whether that went well."""
        from selfreward.plugins.engines.vllm.reload import as_folder

        if self._replicas.broken:
            return False
        self._key = None
        try:
            if weights is None:
                self._exchange("reload_checkpoint", path)
            elif self._in_this_process:
                self._exchange("reload_tensors", weights)
            else:
                with as_folder(weights) as folder:
                    self._exchange("reload_checkpoint", folder)
        except Exception:
            logging.getLogger(__name__).warning("vLLM could not exchange its weights and starts anew", exc_info=True)
            return False
        return True

    def _exchange(self, method: str, source: Any) -> None:
        for engine in self._engines:
            engine.collective_rpc(method, args=(source,))
            if not engine.reset_prefix_cache():
                raise RuntimeError("its prefix cache is in use")

    @property
    def _in_this_process(self) -> bool:
        """Whether vLLM's one worker runs here; several have processes of their own."""
        return self.config.tensor_parallel * self.config.data_parallel == 1

    def _run(self, jobs: Sequence[Job], ended: Callable[[list[int]], None]) -> list[RequestOutput]:
        with _cpu_threads(self._threads):
            outputs = self._replicas.run(jobs, ended)
        for output in outputs:
            reason = output.outputs[0].finish_reason
            if reason not in ("stop", "length"):
                raise StageError(f"engine=vllm: vLLM gave up a sequence ({reason})")
        return outputs

    def _params(self, sampling: Sampling, continues: bool) -> SamplingParams:
        """What vLLM is told about a request; seed and length come with each sample."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind

        if 0 < sampling.temperature < _COLDEST:  # vLLM would take the lowest instead, and go on
            raise UserError(f"engine=vllm: the temperature is 0 or at least {_COLDEST}; got {sampling.temperature:g}")
        try:
            return SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                stop=list(sampling.stop),
                stop_token_ids=self._stops,
                detokenize=bool(sampling.stop),
                skip_clone=True,  # nobody else holds it
                output_kind=RequestOutputKind.FINAL_ONLY,
                **constraint(sampling, self._chat, self._stops, continues),
            )
        except VLLMClientError as problem:
            raise UserError(f"engine=vllm: {problem}") from None

    def _completion(self, request: Request, k: int, output: RequestOutput) -> Completion:
        ids = list(output.outputs[0].token_ids)
        ended = ids[-1] in self._chat.stop_ids
        text = self._chat.decode(ids[:-1] if ended else ids, continues=bool(request.reply_prefix))
        found = [place for stop in request.sampling.stop if (place := text.find(stop)) >= 0]
        return Completion(
            text[: min(found)] if found else text, ids, "stop" if ended or found else "length", request.seed + k
        )

    def _replies(self, request: Continuations, room: int) -> list[tuple[int, ...]]:
        """Token ids of the replies; none of one that does not fit."""
        found = []
        for reply in request.replies:
            if isinstance(reply, str):
                ids = self._chat.encode_reply(reply, continues=bool(request.reply_prefix))
                ids = ids if request.ended else ids[:-1]
            else:
                ids = list(reply)
            found.append(tuple(ids) if len(ids) <= room else ())
        return found


def _dtype(model: ModelRef) -> str:
    """Precision as transformers reads ``auto``; vLLM's own ``auto`` makes float16 of float32."""
    wanted = model.torch_dtype()
    if wanted != "auto" or not model.is_local:
        return wanted
    config = json.loads((Path(model.path) / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    return text.get("dtype") or text.get("torch_dtype") or "auto"


@contextlib.contextmanager
def _cpu_threads(count: int) -> Iterator[None]:
    """Run with so many CPU threads; 0 leaves them alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
