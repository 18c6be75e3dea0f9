"""Runs any Hugging Face causal language model, in batches, with a random stream of its own for every row.

Each row draws with its own generator, seeded ``seed + k``, and takes for each new token::

    logits / temperature -> top-k -> top-p -> p = softmax in float32;  q ~ Exp(1) in float64;  token = argmax p / q

which is a sample from p (an exponential race: Gumbel's trick without logarithms), and the same one that vLLM draws
with ``use_fp64_gumbel``. Rows with equal sampling settings are sorted by prompt length and cut into batches of at most
``max_batch_tokens``; equal prompts are run through the model once for all their samples; finished rows leave the batch.
The batches depend on the requests and on ``max_batch_tokens`` alone, so on a CPU in float32 the same call gives the
same bytes.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import Chat, Completion, Engine, ModelRef, Request, Sampling, StageError, UserError, option

if TYPE_CHECKING:
    import torch

_SMALL_MODEL = 50_000_000  # parameters below which a second CPU thread costs more than it brings
_WORTH_REPACKING = 7 / 8  # a batch is repacked when at most this share of its rows is still being written


@dataclass
class TransformersConfig:
    """Options of ``engine=transformers``."""

    max_batch_tokens: int = option(16384, ge=1)
    """Tokens (rows x (prompt + new tokens)) that are run at once; lower it when memory runs out."""
    threads: int | None = option(None, ge=0)
    """CPU threads; None: one for models below 50 M parameters (faster), otherwise as 0: torch's own number."""
    device: str = "auto"
    """Where the model runs: ``cpu``, ``cuda``, ``cuda:1``; auto: a GPU where there is one."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One completion to write: sample ``k`` of request number ``request``."""

    prompt: tuple[int, ...]
    request: int
    k: int
    seed: int
    continues: bool


class TransformersEngine(Engine):
    """See the module's docstring."""

    def __init__(self, config: TransformersConfig) -> None:
        super().__init__(config)
        self._key: str | None = None
        self._model: Any = None

    def open(self, model: ModelRef) -> None:
        """Load weights and tokenizer; a model with the key of the open one is open already."""
        import torch

        if model.key == self._key:
            return
        self.close()
        device = self.config.device
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._chat: Chat = model.chat()
        self._model = _load(model).to(self._device).eval()
        accepted = inspect.signature(self._model.forward).parameters
        if "past_key_values" not in accepted:
            raise UserError(f"{model.path}: engine=transformers runs models with a key-value cache; this one has none")
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        text_config = self._model.config.get_text_config(decoder=True)
        self._context: int = getattr(text_config, "max_position_embeddings", None) or 1 << 40
        self._vocabulary: int = text_config.vocab_size
        self._stops = torch.zeros(self._vocabulary, dtype=torch.bool, device=self._device)
        self._stops[[i for i in self._chat.stop_ids if i < self._vocabulary]] = True
        small = self._device == "cpu" and sum(p.numel() for p in self._model.parameters()) < _SMALL_MODEL
        self._threads: int = self.config.threads if self.config.threads is not None else int(small)
        self._name, self._key = model.name, model.key

    def close(self) -> None:
        """Drop the model and give its memory back."""
        if self._model is None:
            return
        import torch

        self._model = self._key = None
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()

    def generate(
        self, requests: Sequence[Request], finished: Callable[[int], None] = lambda rows: None
    ) -> list[list[Completion]]:
        """The completions of each request, in order; empty ones where the context has no room for a reply.

        Raises:
            StageError: the GPU's memory does not hold a batch.
        """
        import torch

        replies: list[dict[int, Completion]] = [{} for _ in requests]
        with torch.inference_mode(), _cpu_threads(self._threads):
            for sampling, rows in self._by_sampling(requests, finished):
                for batch in _batches(rows, sampling.max_new_tokens, self.config.max_batch_tokens):
                    try:
                        completions = self._write(batch, sampling, finished)
                    except torch.OutOfMemoryError:
                        budget = self.config.max_batch_tokens
                        problem = (
                            f"engine.max_batch_tokens={budget} does not fit into the GPU's memory; try {budget // 2}"
                        )
                        raise StageError(problem) from None
                    for row, completion in zip(batch, completions, strict=True):
                        replies[row.request][row.k] = completion
        no_room = [[Completion("", [], "length", r.seed + k) for k in range(r.n)] for r in requests]
        return [
            [found.get(k, empty[k]) for k in range(len(empty))] for found, empty in zip(replies, no_room, strict=True)
        ]

    def _by_sampling(
        self, requests: Sequence[Request], finished: Callable[[int], None]
    ) -> Iterator[tuple[Sampling, list[_Row]]]:
        """The rows to write, by what they have in common; longest prompts first, equal prompts together."""
        groups: dict[tuple[Sampling, bool], list[_Row]] = {}
        for number, request in enumerate(requests):
            prompt = tuple(self._chat.encode(request.messages, request.reply_prefix))
            if len(prompt) >= self._context:
                finished(request.n)
                continue
            continues = bool(request.reply_prefix)
            rows = groups.setdefault((request.sampling, continues), [])
            rows += [_Row(prompt, number, k, request.seed + k, continues) for k in range(request.n)]
        for (sampling, _), rows in groups.items():
            yield sampling, sorted(rows, key=lambda r: (-len(r.prompt), r.prompt))

    def _write(self, rows: list[_Row], sampling: Sampling, finished: Callable[[int], None]) -> list[Completion]:
        """Run one batch to its end."""
        import torch

        longest = len(rows[0].prompt)
        lengths = self._tensor([len(r.prompt) for r in rows])
        limits = (self._context - lengths).clamp(max=sampling.max_new_tokens)
        steps = int(limits.max())
        logits, cache, seen = self._prefill(rows, longest + steps)
        draw = _Draw(sampling, rows, self._trie(sampling, rows), logits)

        tokens = torch.zeros(len(rows), steps, dtype=torch.long, device=self._device)
        counts = torch.zeros_like(lengths)
        held = torch.arange(len(rows), device=self._device)  # the rows that are in the cache
        going = torch.ones_like(held, dtype=torch.bool)  # ... and which of them are still being written
        for step in range(steps):
            drawn = draw(logits, going)
            tokens[held, step] = drawn
            ended = going & (self._stops[drawn] | (limits[held] == step + 1))
            if ended.any():
                counts[held[ended]] = step + 1
                finished(int(ended.sum()))
                going &= ~ended
                left = going.nonzero()[:, 0]
                if not len(left):
                    break
                if len(left) <= _WORTH_REPACKING * len(held):
                    cache.reorder_cache(left)
                    draw.keep(left)
                    held, going, drawn, seen = held[left], going[left], drawn[left], seen[left]
            # a finished row that is still held may run past the context: its position is of no interest any more
            positions = (lengths[held] + step).clamp(max=self._context - 1)
            logits = self._forward(drawn[:, None], seen[:, : longest + step + 1], positions[:, None], cache)
        return [self._completion(row, t[:n]) for row, t, n in zip(rows, tokens.tolist(), counts.tolist(), strict=True)]

    def _prefill(self, rows: list[_Row], capacity: int) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Run the distinct prompts, padded on the left, and hand every row its copy.

        Returns:
            Logits after the prompt [rows, vocabulary], the cache, and the attention mask [rows, capacity].
        """
        import torch

        from selfreward.plugins.engines.growing_cache import growing_cache

        prompts = list(dict.fromkeys(row.prompt for row in rows))
        width = len(prompts[0])
        padding = [width - len(p) for p in prompts]
        ids = self._tensor([[self._chat.pad_id] * pad + list(p) for pad, p in zip(padding, prompts, strict=True)])
        columns = torch.arange(capacity, device=self._device)
        seen = (columns >= self._tensor(padding)[:, None]).long()
        positions = (columns[:width] - self._tensor(padding)[:, None]).clamp(min=0)
        cache = growing_cache(self._model.config, capacity)
        logits = self._forward(ids, seen[:, :width], positions, cache)
        place = {prompt: number for number, prompt in enumerate(prompts)}
        copies = self._tensor([place[row.prompt] for row in rows])
        cache.reorder_cache(copies)
        return logits[copies], cache, seen[copies]

    def _forward(self, ids: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits after the last token, in float32 [rows, vocabulary]."""
        where = {"position_ids": positions} if self._takes_positions else {}
        out = self._model(
            input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True, **where, **self._last_only
        )
        return out.logits[:, -1].float()

    def _trie(self, sampling: Sampling, rows: list[_Row]) -> torch.Tensor | None:
        """The choices as a tree of tokens: [node, token] -> the next node, or -1 where the token is not allowed."""
        import torch

        if not sampling.choices:
            return None
        tree: list[dict[int, int]] = [{}]
        for choice in sampling.choices:
            node = 0
            for token in self._chat.encode_reply(choice, continues=rows[0].continues):
                if token not in tree[node]:
                    tree[node][token] = len(tree)
                    tree.append({})
                node = tree[node][token]
        table = torch.full((len(tree), self._vocabulary), -1, dtype=torch.long, device=self._device)
        for node, following in enumerate(tree):
            for token, target in following.items():
                table[node, token] = target
        return table

    def _completion(self, row: _Row, ids: list[int]) -> Completion:
        stopped = ids[-1] in self._chat.stop_ids
        text = self._chat.decode(ids[:-1] if stopped else ids, continues=row.continues)
        return Completion(text, ids, "stop" if stopped else "length", row.seed)

    def _tensor(self, numbers: list[Any]) -> Any:
        import torch

        return torch.tensor(numbers, dtype=torch.long, device=self._device)


class _Draw:
    """Draws the next token of every row from its own random stream."""

    def __init__(self, sampling: Sampling, rows: list[_Row], trie: torch.Tensor | None, logits: torch.Tensor) -> None:
        import torch

        self._sampling = sampling
        self._trie = trie
        self._nodes = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
        self._generators = [torch.Generator(logits.device).manual_seed(row.seed) for row in rows]
        self._noise = torch.ones_like(logits, dtype=torch.float64)
        self._noise_rows = self._noise.unbind()

    def __call__(self, logits: torch.Tensor, going: torch.Tensor) -> torch.Tensor:
        """Token ids [rows] after ``logits`` [rows, vocabulary]; only rows that are ``going`` use their stream."""
        if self._trie is not None:
            logits = logits.masked_fill(self._trie[self._nodes] < 0, -math.inf)
        tokens = self._sample(logits, going) if self._sampling.temperature else logits.argmax(-1)
        if self._trie is not None:
            self._nodes = self._trie[self._nodes, tokens].clamp(min=0)  # a finished row has no next node
        return tokens

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but these."""
        self._nodes = self._nodes[rows]
        self._generators = [self._generators[i] for i in rows.tolist()]
        self._noise = self._noise[: len(rows)]
        self._noise_rows = self._noise.unbind()

    def _sample(self, logits: torch.Tensor, going: torch.Tensor) -> torch.Tensor:
        logits = top_p_filter(
            top_k_filter(logits / self._sampling.temperature, self._sampling.top_k), self._sampling.top_p
        )
        for noise, generator, wanted in zip(self._noise_rows, self._generators, going.tolist(), strict=True):
            if wanted:
                noise.exponential_(generator=generator)
        return logits.softmax(-1).double().div_(self._noise).argmax(-1)


def top_k_filter(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the ``k`` highest logits of each row [rows, vocabulary] and ties with the last; 0 keeps all."""
    if not 0 < k < logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf)


def top_p_filter(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep, in each row, the fewest most probable tokens whose mass reaches ``p``, and ties with the last.

    Source: nucleus sampling, arXiv:1904.09751 §3.1.
    """
    if p >= 1:
        return logits
    probabilities = logits.softmax(-1)
    ranked = _ascending(probabilities).flip(-1)
    kept = 1 + (ranked.cumsum(-1)[:, :-1] < p).sum(-1, keepdim=True)
    return logits.masked_fill(probabilities < ranked.gather(-1, kept - 1), -math.inf)


def _ascending(values: torch.Tensor) -> torch.Tensor:
    """The values of each row in order."""
    if values.device.type != "cpu":
        return values.sort(dim=-1).values
    import numpy as np
    import torch

    return torch.from_numpy(np.sort(values.numpy()))  # many times faster than torch's sort on a CPU


def _batches(rows: list[_Row], new_tokens: int, budget: int) -> Iterator[list[_Row]]:
    """Cut rows (longest prompt first) into batches under the token budget, the rest into parts of about equal size."""
    while rows:
        capacity = max(1, budget // (len(rows[0].prompt) + new_tokens))
        size = math.ceil(len(rows) / math.ceil(len(rows) / capacity))
        yield rows[:size]
        rows = rows[size:]


def _load(model: ModelRef) -> Any:
    """The weights, from safetensors and without running code of the checkpoint."""
    from transformers import AutoModelForCausalLM

    folder = Path(model.path)
    if model.is_local and not any(folder.glob("*.safetensors")):
        pickled = next(folder.glob("*.bin"), None)
        found = f"only {pickled.name}, a pickle, which may run code when it is read" if pickled else "no weights"
        raise UserError(
            f"{model.path}: there is {found}; engine=transformers reads *.safetensors. Convert it where you trust it: "
            "load it with transformers and save_pretrained() it again"
        )
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            model.path,
            dtype=model.torch_dtype(),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        loaded, report = loading
    except (OSError, ValueError, KeyError, ImportError) as problem:
        raise UserError(f"{model.path}: engine=transformers cannot load this model: {problem}") from None
    if report["missing_keys"]:  # they would be filled with random numbers
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(
            f"{model.path}: {len(report['missing_keys'])} weights are missing from the checkpoint ({missing})"
        )
    return loaded


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
