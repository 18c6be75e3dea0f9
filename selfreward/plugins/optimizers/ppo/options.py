"""What can be set of PPO (:mod:`selfreward.plugins.optimizers.ppo`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from selfreward import RoleKind, option, role
from selfreward.plugins.optimizers.training.options import OptimizationOptions


class ScoreScaling(Enum):
    """What becomes of a judge's score before it is a reward."""

    running = "running"
    start = "start"
    none = "none"


@dataclass
class PpoConfig(OptimizationOptions):
    """Options of ``optimizer=ppo``."""

    epochs: float = option(1.0, gt=0)
    """Passes over the prompts."""
    rollouts: int = option(128, ge=1)
    """Prompts answered in each batch, at most, ``sampler.n`` answers each (or whose stored answers are taken)."""
    ppo_epochs: int = option(4, ge=1)
    """Passes over a batch of answers before new ones are sampled."""
    batch_size: int = option(64, ge=1)
    """Answers per optimizer step, over all GPUs and accumulated passes together."""
    clip: float = option(0.2, gt=0)
    """Clip range of the ratio of the policy to the one that sampled."""
    value_clip: float = option(0.2, ge=0)
    """Clip range of the values around those before the updates, in scaled scores; 0 = off."""
    value_coef: float = option(0.1, ge=0)
    """Weight of the value loss."""
    entropy_coef: float = option(0.0, ge=0)
    """Weight of the entropy bonus, per token."""
    gamma: float = option(1.0, gt=0, le=1)
    """Discount of later rewards, per token."""
    lam: float = option(0.95, ge=0, le=1)
    """GAE's lambda: 1 trusts the scores alone, 0 the value function."""
    beta: float = option(0.05, ge=0)
    """Price of one nat of KL to the reference, in scaled scores; where it begins, with a target."""
    kl_target: float | None = option(None, gt=0)
    """KL to the reference, in nats an answer, that beta is adapted to; null = beta is fixed."""
    kl_horizon: float = option(10_000.0, gt=0)
    """Answers over which beta is adapted."""
    max_kl: float = option(100.0, ge=0)
    """KL to the reference, in nats an answer, beyond which the run is stopped; 0 = never."""
    stop_kl: float = option(0.1, ge=0)
    """KL to the policy that sampled, in nats a token, from which on a batch's further steps are left out; 0 = never."""
    score_scaling: ScoreScaling = ScoreScaling.running
    """running: scores over their SD so far, no shift; start: less mean, over SD, of the first batch's; none."""
    score_clip: float = option(10.0, ge=0)
    """Scores further from their mean than so many SDs are clipped, where they are scaled; 0 = off."""
    whiten_advantages: bool = True
    """Shift and scale a batch's advantages to mean 0 and variance 1."""
    missing_eos: float | None = option(-1.0)
    """Score, in the judge's points, of an answer that was cut off at the token limit; null = the judge's own."""
    critic: str = role("head", "head", "start", kind=RoleKind.any)
    """Value function: ``head`` on the policy, or a model of its own that begins as this role: start, reward, M1."""
    replay: float = option(0.0, ge=0)
    """Weight of the seed demonstrations' log-likelihood per token (PPO-ptx), one for each answer; 0 = off."""
    adam_eps: float = option(1e-5, gt=0)
    """AdamW's epsilon."""
    dropout: float = option(0.0, ge=0, lt=1)
    """Dropout inside the model while it takes steps; answers and their log-probabilities are made without."""
    max_length: int = option(2048, ge=2)
    """Tokens of prompt and answer together; longer ones are not learnt from and counted as ``too_long``."""
