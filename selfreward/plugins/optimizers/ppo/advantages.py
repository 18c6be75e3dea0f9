"""From scores to advantages: what each token of an answer is credited with.

For an answer of T tokens with score s, log-probabilities log pi and log ref of its tokens, and values V:

- reward      r_t = -beta (log pi_t - log ref_t), and r_T has s besides; arXiv:1909.08593 eq. 2, token by token
- residual    delta_t = r_t + gamma V_{t+1} - V_t, with V_{T+1} = 0; arXiv:1506.02438 eq. 9
- advantage   A_t = delta_t + gamma lambda A_{t+1}; arXiv:1506.02438 eq. 16
- return      R_t = A_t + V_t, what the value function is to learn

All tensors are [answers, tokens]; ``mask`` is 1 where there is a token of an answer. Answers begin in column 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """The rewards of all tokens: the KL penalty everywhere, the answer's score [answers] on its last token."""
    import torch

    rewards = -beta * kl * mask
    last = (mask.sum(1).long() - 1).clamp(min=0)
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last] += scores * mask[rows, last]
    return rewards


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns; 0 where there is no token."""
    import torch

    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    residuals = (rewards + gamma * following - values) * mask
    advantages, later = torch.zeros_like(residuals), torch.zeros_like(residuals[:, 0])
    for column in reversed(range(residuals.shape[1])):
        later = residuals[:, column] + gamma * lam * later
        advantages[:, column] = later
    return advantages * mask, (advantages + values) * mask


def whiten(values: Tensor, mean: float, variance: float, mask: Tensor) -> Tensor:
    """Values with mean 0 and variance 1; 0 where there is no token.

    Mean and variance are given, since they are those of the tokens of all processes.
    """
    return (values - mean) / (variance + 1e-8) ** 0.5 * mask
