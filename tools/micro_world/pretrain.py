"""Pre-train M0, the model that ships with the micro world; from a checkout:

    python -m tools.micro_world.pretrain --out DIR

The same seed, steps and number of processes give the same bytes on one machine; nothing written depends on the clock.
About ten minutes on two cores.

What makes looking-up emerge in so small a model: one document per row, never packed (a packed context holds nearly
every word, so copying would never pay); loss only on what can be decided; Muon on the matrices; a first phase of school
exercises only; two heads of each layer that start out attending to equal tokens (q = k).

Two processes of one thread that average their gradients are nearly twice as fast as one process of two threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.micro_world.corpus import Document, mixed_document, school_exercise
from tools.micro_world.probes import Probe, make_probes, probe_accuracy
from tools.micro_world.tokenizer import MAX_LENGTH, build_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

LOG_NAME = "pretrain.log"
WEIGHTS_NAME = "model.safetensors"
IGNORED = -100
"""The label of a token that does not count in the loss."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that the bytes of M0 depend on."""

    seed: int = 7
    steps: int = 3000
    school_steps: int = 400
    """The first steps, which see school exercises only."""
    tokens_per_step: int = 2048
    """Padded tokens in a batch, at most."""
    lr: float = 3e-3
    warmup_steps: int = 50
    flat_share: float = 0.3
    """Share of the steps at full learning rate; then it falls linearly."""
    lr_floor: float = 0.02
    weight_decay: float = 0.05
    processes: int = 2
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 256
    equal_token_heads: int = 2
    """Heads of each layer that start with q = k."""


@dataclass(frozen=True)
class Row:
    """One document as token ids, each with whether it counts in the loss."""

    ids: list[int]
    counts: list[bool]


# ------------------------------------------------------------------------------------------------------------- data


def encode_documents(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> list[Row]:
    """Turn documents into rows that open with the begin token and end with the end token."""
    texts = [text for document in documents for text, _ in document]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows = []
    for document in documents:
        row = Row([tokenizer.bos_token_id], [False])
        for _, counts in document:
            ids = next(encoded)
            row.ids.extend(ids)
            row.counts.extend([counts] * len(ids))
        row.ids.append(tokenizer.eos_token_id)
        row.counts.append(True)
        rows.append(row)
    return rows


def batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[list[Row]]:
    """Yield one batch per step: rows of like length, one document each, as many as the token budget holds."""
    rng = random.Random(config.seed)
    school_steps = min(config.school_steps, config.steps)
    for maker, count in ((school_exercise, school_steps), (mixed_document, config.steps - school_steps)):
        made = 0
        while made < count:
            pool = encode_documents(tokenizer, [maker(rng) for _ in range(2000)])
            chunk = bucket_by_length(pool, config.tokens_per_step)
            rng.shuffle(chunk)
            yield from chunk[: count - made]
            made += len(chunk)


def bucket_by_length(rows: list[Row], tokens: int) -> list[list[Row]]:
    """Cut rows, sorted by length, into batches of at most that many padded tokens."""
    found: list[list[Row]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if found[-1] and len(row.ids) * (len(found[-1]) + 1) > tokens:
            found.append([])
        found[-1].append(row)
    return found


def as_tensors(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and labels, both (rows, longest row), padded on the right."""
    import torch

    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.tensor(row.ids)
        labels[number, :length] = torch.tensor(row.ids).where(torch.tensor(row.counts), torch.tensor(IGNORED))
    return ids, labels


# ------------------------------------------------------------------------------------------------------------ model


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of some 0.7 million parameters, float32, with tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    architecture = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=config.hidden,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        initializer_range=0.08,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(architecture)
    with torch.no_grad():
        for layer in model.model.layers:
            first = slice(0, 32 * config.equal_token_heads)
            layer.self_attn.k_proj.weight[first] = layer.self_attn.q_proj.weight[first]
    return model


def build_optimizers(config: PretrainConfig, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the embeddings and the norms."""
    import torch

    embeddings = model.model.embed_tokens.weight
    matrices = [p for p in model.parameters() if p.dim() == 2 and p is not embeddings]
    others = [p for p in model.parameters() if p.dim() != 2 or p is embeddings]
    muon = torch.optim.Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Warm-up, flat, then linear down to a small share."""
    warmup = min(1.0, (step + 1) / config.warmup_steps)
    progress = step / config.steps
    falling = 1.0 if progress < config.flat_share else (1 - progress) / (1 - config.flat_share)
    return config.lr * warmup * max(config.lr_floor, falling)


# --------------------------------------------------------------------------------------------------------- training


class PretrainLog:
    """Lines for the screen and for the log file, from the first process alone. Never a time of day."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.lines: list[str] = []

    def __call__(self, **values: Any) -> None:
        shown = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in values.items()}
        self.lines.append(" ".join(f"{name}={value}" for name, value in shown.items()))
        if self.rank == 0:
            print(self.lines[-1], flush=True)


def train(
    config: PretrainConfig, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rank: int, log: PretrainLog
) -> None:
    """Run every step. Each process takes every n-th row of the batch; gradients are summed over processes."""
    import torch

    optimizers = build_optimizers(config, model)
    probes = make_probes(tokenizer)
    losses, tokens, began = [], 0, time.monotonic()
    for step, rows in enumerate(batches(config, tokenizer)):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(config, step)
        losses.append(_backward(config, model, tokenizer, rows, rank))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens += sum(len(row.ids) for row in rows)
        done = step + 1
        if rank == 0 and (done % 100 == 0 or done == config.steps):
            log(step=done, loss=sum(losses) / len(losses), tokens=tokens)
            print(f"  {tokens / (time.monotonic() - began):.0f} tokens/s", file=sys.stderr, flush=True)
            losses = []
            if done % 500 == 0 or done == config.steps:
                _log_probes(model, probes, done, log)


def _backward(
    config: PretrainConfig, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row], rank: int
) -> float:
    """Leave in `.grad` the gradient of the mean loss over all counted tokens of the batch; return that loss."""
    import torch

    counted = sum(sum(row.counts) for row in rows)
    ids, labels = as_tensors(rows[rank :: config.processes] or rows[:1], tokenizer.pad_token_id)
    if len(rows) <= rank:
        labels.fill_(IGNORED)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids).logits[:, :-1].float()
        total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        loss = total / counted
    loss.backward()
    return _sum_over_processes(model, loss.detach()) if config.processes > 1 else loss.item()


def _sum_over_processes(model: LlamaForCausalLM, loss: torch.Tensor) -> float:
    """Replace every gradient by its sum over the processes, in one exchange; return the sum of the losses."""
    import torch

    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    exchanged = torch.cat([loss.reshape(1), *[gradient.flatten() for gradient in gradients]])
    torch.distributed.all_reduce(exchanged)
    sums = exchanged[1:].split([gradient.numel() for gradient in gradients])
    for gradient, summed in zip(gradients, sums, strict=True):
        gradient.copy_(summed.view_as(gradient))
    return exchanged[0].item()


def _log_probes(model: LlamaForCausalLM, probes: dict[str, list[Probe]], step: int, log: PretrainLog) -> None:
    for name, cases in probes.items():
        log(step=step, probe=name, **probe_accuracy(model, cases))


def pretrain(config: PretrainConfig, out: Path, rank: int = 0) -> None:
    """Train M0 in this process, one of `config.processes`; the first of them writes the folder."""
    import torch

    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer)
    log = PretrainLog(rank)
    log(config=json.dumps(asdict(config)), parameters=model.num_parameters(), vocabulary=len(tokenizer))
    train(config, model, tokenizer, rank, log)
    if rank == 0:
        save(model, tokenizer, out, log)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, log: PretrainLog) -> None:
    """Write weights, configs, tokenizer and the log, kept beside this file, ending with the sha256 of the weights."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=0.95,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.config._name_or_path = ""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    log(sha256=hashlib.sha256((out / WEIGHTS_NAME).read_bytes()).hexdigest(), file=WEIGHTS_NAME)
    (out / LOG_NAME).write_text("\n".join(log.lines) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ command line


def pretrain_in_processes(config: PretrainConfig, out: Path) -> None:
    """Start one process per share of the batch and wait for all of them."""
    command = [sys.executable, "-m", "tools.micro_world.pretrain"]
    checkout = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryDirectory() as folder:
        shared = ["--out", str(out.resolve()), "--seed", str(config.seed), "--steps", str(config.steps)]
        shared += ["--processes", str(config.processes), "--meet-at", f"{folder}/meeting"]
        started = [
            subprocess.Popen([*command, *shared, "--rank", str(rank)], env=environment, cwd=checkout)
            for rank in range(config.processes)
        ]
        codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"pre-training failed; exit codes of the processes: {codes}")


def main() -> None:
    """Read the command line; with `--rank` this is one of the started processes."""
    parser = argparse.ArgumentParser(description="Pre-train M0 of the micro world.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--processes", type=int, default=PretrainConfig.processes, help="one-thread processes")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet-at", help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = PretrainConfig(seed=given.seed, steps=given.steps, processes=given.processes)
    if given.rank is None:
        pretrain_in_processes(config, given.out)
        return

    import torch.distributed

    meeting = f"file://{given.meet_at}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=given.rank, world_size=config.processes)
    try:
        pretrain(config, given.out, given.rank)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
