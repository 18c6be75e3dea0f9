"""What a training is without a trainer: PPO and DPO as plain PyTorch loops, with the arithmetic of the optimizers.

Rows come as token ids and in the batches that the optimizers draw, so that both must end with the same weights. Nothing
is logged, checked, resumed or shared between processes. PPO's head reads the answers alone; DPO's reads all positions,
since that is what ``model(...).logits`` does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM
from transformers.trainer_pt_utils import get_length_grouped_indices

from selfreward import digest

Ids = list[int]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TEMPERATURE = 1.0


def load(path: Path) -> Any:
    """The weights in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.config.use_cache = False
    return model.to(DEVICE)


def padded(rows: Sequence[Ids], pad: int, left: bool = False) -> Tensor:
    """The rows as one tensor."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, fill, strict=True)], device=DEVICE)


def ones(rows: Sequence[Ids], left: bool = False) -> Tensor:
    """1 where :func:`padded` has a token."""
    return padded([[1] * len(row) for row in rows], 0, left)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of ids [rows, tokens]."""
    return logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]


# ------------------------------------------------------------------ DPO


@dataclass(frozen=True)
class Pair:
    """Token ids."""

    prompt: Ids
    chosen: Ids
    rejected: Ids


class BareDpo:
    """``model(...).logits``, AdamW, and the reference's log-probabilities from before the first step."""

    def __init__(self, start: Path, pairs: Sequence[Pair], options: Any, seed: int, pad: int) -> None:
        self.pairs, self.options, self.seed, self.pad = pairs, options, seed, pad
        self.model = load(start)
        betas = (options.adam_beta1, options.adam_beta2)
        self.adamw = torch.optim.AdamW(self.model.parameters(), options.lr, betas, weight_decay=0.0, fused=True)
        self.model.eval()
        size, rows = options.batch_size, range(len(pairs))
        with torch.no_grad():
            parts = [self.answers(rows[start : start + size]).view(2, -1) for start in rows[::size]]
        self.reference = torch.cat(parts, 1)

    def answers(self, rows: Sequence[int]) -> Tensor:
        """Summed log-probabilities of the chosen answers, then of the rejected ones."""
        some = [self.pairs[row] for row in rows]
        answers = [(p.prompt, p.chosen) for p in some] + [(p.prompt, p.rejected) for p in some]
        whole = [prompt + answer for prompt, answer in answers]
        ids, real = padded(whole, self.pad), ones(whole)
        mask = padded([[0] * len(prompt) + [1] * len(answer) for prompt, answer in answers], 0)
        logits = self.model(input_ids=ids, attention_mask=real).logits
        return (token_logprobs(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]).sum(1)

    def batches(self) -> list[list[int]]:
        """The rows of every step."""
        lengths = [len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in self.pairs]
        size, found = self.options.batch_size, []
        for epoch in range(int(self.options.epochs)):
            drawn = torch.Generator().manual_seed(self.seed + epoch)
            order = get_length_grouped_indices(lengths, size, generator=drawn)
            found += [order[start : start + size] for start in range(0, len(order), size)]
        return found

    def step(self, rows: Sequence[int]) -> None:
        """One step on some pairs."""
        chosen, rejected = self.answers(rows).view(2, -1) - self.reference[:, rows]
        (-logsigmoid(self.options.beta * (chosen - rejected)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
        self.adamw.step()
        self.adamw.zero_grad()


# ------------------------------------------------------------------ PPO


@dataclass(frozen=True)
class Answer:
    """Token ids and a score."""

    prompt: Ids
    tokens: Ids
    score: float

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens)


class BarePpo:
    """Policy with a value head, frozen reference, AdamW. There are ``per_prompt`` answers to each prompt in turn."""

    def __init__(
        self, start: Path, answers: Sequence[Answer], per_prompt: int, options: Any, seed: int, pad: int
    ) -> None:
        self.answers, self.per_prompt, self.options, self.seed, self.pad = answers, per_prompt, options, seed, pad
        self.policy, self.reference = load(start), load(start).requires_grad_(False)
        self.head = torch.nn.Linear(self.policy.config.hidden_size, 1).to(DEVICE)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.trained = [*self.policy.parameters(), *self.head.parameters()]
        betas = (options.adam_beta1, options.adam_beta2)
        self.adamw = torch.optim.AdamW(self.trained, options.lr, betas, options.adam_eps, 0.0, fused=True)
        self.seen: list[float] = []
        """All scores so far."""
        self.behaviour = self.before(range(len(answers)))[0]

    def train(self) -> None:
        """One pass over the answers, in batches of so many prompts."""
        options, prompts = self.options, list(range(len(self.answers) // self.per_prompt))
        random.Random(digest(self.seed, "epoch", 0)).shuffle(prompts)
        for batch, start in enumerate(range(0, len(prompts), options.rollouts)):
            places = prompts[start : start + options.rollouts]
            rows = [place * self.per_prompt + k for place in places for k in range(self.per_prompt)]
            old, *thought = self.think(rows, first=not batch)
            for epoch in range(options.ppo_epochs):
                order = list(range(len(rows)))
                random.Random(digest(self.seed, "rows", batch, epoch, 0)).shuffle(order)
                for begin in range(0, len(order), options.batch_size):
                    some = self.by_length(order[begin : begin + options.batch_size], rows)
                    width = max(len(self.answers[rows[i]].tokens) for i in some)
                    self.step([rows[i] for i in some], *(t[some, :width] for t in (old, *thought)))

    def by_length(self, places: Sequence[int], rows: Sequence[int]) -> list[int]:
        """Places in ``rows``, those of short answers first."""
        return sorted(places, key=lambda place: (len(self.answers[rows[place]]), place))

    def read(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the answers' tokens, and the hidden states that they are predicted from."""
        prompts, tokens = [self.answers[row].prompt for row in rows], [self.answers[row].tokens for row in rows]
        said = padded(tokens, self.pad)
        real = torch.cat([ones(prompts, left=True), ones(tokens)], 1)
        hidden = model.model(
            input_ids=torch.cat([padded(prompts, self.pad, left=True), said], 1),
            attention_mask=real,
            position_ids=(real.cumsum(1) - 1).clamp(min=0),
        ).last_hidden_state[:, -said.shape[1] - 1 : -1]
        return token_logprobs(model.lm_head(hidden) / TEMPERATURE, said), hidden

    @torch.no_grad()
    def before(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the policy and of the reference, and values [rows, tokens]."""
        shape = len(rows), max(len(self.answers[row].tokens) for row in rows)
        now, reference, values = (torch.zeros(shape, device=DEVICE) for _ in range(3))
        order, size = self.by_length(range(len(rows)), rows), 2 * self.options.batch_size
        for some in (order[start : start + size] for start in range(0, len(order), size)):
            chunk = [rows[i] for i in some]
            logprobs, hidden = self.read(self.policy, chunk)
            width = logprobs.shape[1]
            now[some, :width], values[some, :width] = logprobs, self.head(hidden)[..., 0]
            reference[some, :width] = self.read(self.reference, chunk)[0]
        return now, reference, values

    @torch.no_grad()
    def think(self, rows: Sequence[int], first: bool) -> tuple[Tensor, ...]:
        """Log-probabilities under the start, values, whitened advantages, returns, and the mask [rows, tokens]."""
        options, mask = self.options, ones([self.answers[row].tokens for row in rows]).float()
        scores = torch.tensor([self.answers[row].score for row in rows], device=DEVICE)
        self.seen += scores.tolist()
        sd = torch.tensor(self.seen, dtype=torch.float64).std(correction=0).item()
        scores = (scores / sd).clamp(-options.score_clip, options.score_clip)
        now, reference, values = self.before(rows)
        if first:
            lift = scores.mean() - (values * mask).sum() / mask.sum()
            self.head.bias.add_(lift)
            values += lift
        rewards, ends = -options.beta * (now - reference) * mask, mask.sum(1).long() - 1
        rewards[range(len(rows)), ends] += scores
        values = values * mask
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        residuals = (rewards + options.gamma * following - values) * mask
        advantages, later = torch.zeros_like(values), torch.zeros_like(scores)
        for column in reversed(range(mask.shape[1])):
            later = residuals[:, column] + options.gamma * options.lam * later
            advantages[:, column] = later
        returns = (advantages + values) * mask
        known = advantages[mask.bool()]
        advantages = (advantages - known.mean()) / (known.var(correction=0) + 1e-8).sqrt() * mask
        return self.behaviour[rows, : mask.shape[1]], values, advantages, returns, mask

    def step(
        self, rows: Sequence[int], old: Tensor, values: Tensor, advantages: Tensor, returns: Tensor, mask: Tensor
    ) -> None:
        """One clipped step on some answers."""
        options = self.options
        logprobs, hidden = self.read(self.policy, rows)
        ratio = ((logprobs - old) * mask).exp()
        bounded = ratio.clamp(1 - options.clip, 1 + options.clip)
        policy_loss = torch.maximum(-advantages * ratio, -advantages * bounded)
        said = self.head(hidden)[..., 0]
        near = values + (said - values).clamp(-options.value_clip, options.value_clip)
        value_loss = 0.5 * torch.maximum((said - returns) ** 2, (near - returns) ** 2)
        (((policy_loss + options.value_coef * value_loss) * mask).sum() / mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, options.max_grad_norm)
        self.adamw.step()
        self.adamw.zero_grad()
