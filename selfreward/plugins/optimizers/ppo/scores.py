"""Judges' scores as rewards: counted, scaled without a shift of their mean, refused where they teach nothing.

Divided by their standard deviation so far, scores of any judge are on one scale, on which ``beta``, the clip range of
the values and Adam's epsilon mean the same; their mean is left alone, which the value function learns
(arXiv:2307.04964 §3.3, arXiv:1909.08593's code). With ``score_scaling=start`` they are less the mean, over the standard
deviation, of the first batch's scores, which are those of the model that training begins from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from selfreward import StageError
from selfreward.plugins.optimizers.ppo.answers import COUNTS, Batch
from selfreward.plugins.optimizers.ppo.options import PpoConfig, ScoreScaling
from selfreward.plugins.optimizers.ppo.state import State
from selfreward.plugins.optimizers.training.processes import totals

if TYPE_CHECKING:
    from accelerate import Accelerator


def scale_scores(
    batch: Batch, state: State, config: PpoConfig, accelerator: Accelerator, where: str
) -> dict[str, float]:
    """Scale the batch's scores in place; figures of them as they were, over all processes.

    ``reward_sd`` is 0 where all scores are equal: from such a batch nothing is to be learnt.

    Raises:
        StageError: no answer has a score, one is no finite number, or all of the first batch's are equal.
    """
    has = batch.mask.sum(1) > 0
    raw = batch.scores.double()
    count, total, squares, tokens = totals(accelerator, has.sum(), raw.sum(), (raw**2).sum(), batch.mask.sum())
    counted = dict(zip(COUNTS, totals(accelerator, *(float(batch.counts[name]) for name in COUNTS)), strict=True))
    for name, value in counted.items():
        state.counts[name] = state.counts.get(name, 0) + round(value)
    if not math.isfinite(total):
        raise StageError(
            f"a score is no number ({where}); {state.so_far()}; nothing was saved; look at the judge (judge=)"
        )
    if not count:
        raise StageError(
            f"not one of {counted['answers']:.0f} answers has a score ({where}): {counted['unreadable']:.0f} of "
            f"{counted['votes']:.0f} verdicts unreadable, {counted['too_long']:.0f} answers too long; "
            f"{state.so_far()}; ways out: another judge (judge=), raise optimizer.max_length"
        )
    mean = total / count
    variance = max(0.0, squares / count - mean**2)
    flat = variance <= 1e-12 * max(1.0, mean**2)
    if flat and not state.batch and config.missing_eos is not None and counted["cut_off"] == counted["answers"] > 0:
        raise StageError(
            f"all {count:.0f} answers were cut off at the token limit and none was judged ({where}); {state.so_far()}; "
            "ways out: raise sampler.max_new_tokens, or let the judge score what is there "
            "(optimizer.missing_eos=null)"
        )
    if flat and not state.batch:
        raise StageError(
            f"all {count:.0f} answers of the first batch have the same score, {mean:g}: there is nothing to prefer; "
            "ways out: a judge or rubric that tells answers apart (judge=, judge.rubric=), raise "
            "sampler.temperature, raise optimizer.rollouts"
        )
    if not flat:
        batch.scores = _scaled(batch.scores, state, config, (count, total, squares)) * has
    known = {"reward": mean, "reward_sd": 0.0 if flat else math.sqrt(variance), "answers": count}
    left_out = {name: counted[name] for name in ("unscored", "cut_off", "too_long")}
    return known | {"length": tokens / count, "beta": state.beta} | left_out


def _scaled(scores: Tensor, state: State, config: PpoConfig, sums: tuple[float, float, float]) -> Tensor:
    """Outliers are clipped by how far they lie from the mean; clipping the scores themselves would make all alike."""
    kind = config.score_scaling
    if kind is ScoreScaling.none:
        return scores
    if kind is ScoreScaling.running or not state.scores[0]:
        state.scores = [old + new for old, new in zip(state.scores, sums, strict=True)]
    mean, sd = scale(state)
    deviations = (scores - mean) / sd
    if config.score_clip:
        deviations = deviations.clamp(-config.score_clip, config.score_clip)
    return deviations if kind is ScoreScaling.start else deviations + mean / sd


def scale(state: State) -> tuple[float, float]:
    """Mean and standard deviation of the scores that scaling knows; 0 and 1 where it knows none."""
    count, total, squares = state.scores
    if not count:
        return 0.0, 1.0
    return total / count, math.sqrt(max(squares / count - (total / count) ** 2, 1e-16))
