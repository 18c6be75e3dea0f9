"""What policy gradients need: answers whose probability is known, and an engine that runs weights in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfreward.core.contracts.rounds import Round
from selfreward.core.contracts.stages import Optimizer, Sampler
from selfreward.core.run.run import Run

WHOLE_MODELS = ("NO", "MULTI_GPU", "MULTI_CPU")
"""``distributed_type`` of accelerate under which each process has the whole model."""


def _layout(launch_config: str) -> str:
    """``distributed_type`` of an ``accelerate`` config file."""
    import yaml

    config = yaml.safe_load(Path(launch_config).read_text(encoding="utf-8"))
    return str((config or {}).get("distributed_type") or "NO")


def gradient_problems(round: Round, launch: str | None) -> Iterator[str]:
    """Policy gradients need the probability with which an answer was drawn: nothing may have been cut from it."""
    optimizer: type[Optimizer] = round.optimizer.plugin.load()
    if not optimizer.unfiltered:
        return
    name = round.optimizer.name
    if launch and (layout := _layout(launch)) not in WHOLE_MODELS:
        yield (
            f"launch.config={launch}: optimizer={name} trains whole models or adapters in each "
            f"process, not under {layout}: set launch.processes= without launch.config="
        )
    sampler: Sampler = round.sampler.build()
    how = sampler.sampling
    if how.top_p != 1 or how.top_k:
        yield (
            f"optimizer={name} takes the probability of each answer, and with sampler.top_p={how.top_p:g} "
            f"sampler.top_k={how.top_k} answers are drawn from a part of the distribution only: set sampler.top_p=1 "
            "sampler.top_k=0"
        )
    writer = next(iter(sampler.models()), "policy")
    start = "policy" if round.online else round.optimizer.config.init_from
    if writer != start:
        yield (
            f"sampler.model={writer}: optimizer={name} takes the probability of each answer under the "
            f"model that wrote it, which is "
            + ("the one in training: set sampler.model=policy" if round.online else f"optimizer.init_from={start}")
        )
    if how.temperature == 0:
        yield f"optimizer={name} learns from answers that differ: set sampler.temperature above 0"


def online_problems(run: Run, round: Round) -> Iterator[str]:
    """What an online optimizer cannot do: sample without weights, drop rows, learn from too few answers."""
    if not round.online:
        return
    name, optimizer = round.optimizer.name, round.optimizer.plugin.load()
    engine, processes = run.config.choices["engine"], run.options.launch.processes
    if not engine.plugin.load().takes_weights:
        yield (
            f"optimizer={name} samples while it trains, and engine={engine.name} cannot run weights "
            "that are in no file: use engine=transformers or engine=vllm"
        )
    elif processes > 1 and not engine.plugin.load().in_trainers:
        yield (
            f"optimizer={name} has an engine in each of launch.processes={processes}, and engine="
            f"{engine.name} would join them as processes of its own: use engine=transformers"
        )
    sampler: Sampler = round.sampler.build()
    if not sampler.uses_model:
        yield f"optimizer={name} trains on its own answers, and sampler={round.sampler.name} has none: sampler=nucleus"
    for kind, filters in (("candidate_filters", round.candidate_filters), ("pair_filters", round.pair_filters)):
        if chosen := [choice.name for choice in filters]:
            yield f"{kind}=[{','.join(chosen)}] would do nothing: optimizer={name} makes its own rows; set {kind}=[]"
    if sampler.n < (least := optimizer.least_answers):
        yield f"optimizer={name} compares the answers to a prompt: sampler.n={sampler.n} must be at least {least}"
