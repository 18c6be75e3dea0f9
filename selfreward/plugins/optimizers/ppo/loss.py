"""The losses of proximal policy optimization (arXiv:1707.06347).

With the ratio q_t = exp(log pi_t - log old_t), the advantage A_t and the clip range e:

- policy   mean_t max(-A_t q_t, -A_t clip(q_t, 1 - e, 1 + e)); eq. 7
- value    mean_t 1/2 max((V_t - R_t)^2, (clip(V_t, old_V_t - e_v, old_V_t + e_v) - R_t)^2); arXiv:1909.08593's code
- entropy  mean_t H(pi_t); eq. 9

Means are over the tokens of a minibatch, whatever answers they are from; the sums here are divided by ``tokens``, the
number of them over all passes and processes, so that neither changes what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of a pass, and figures of it: sums over its tokens."""

    loss: Tensor
    clipped: Tensor
    """Tokens whose ratio is outside of the clip range on the side that counts."""
    kl: Tensor
    """(q - 1) - log q, an estimate of KL(old, pi) with little variance: how far the updates have gone."""


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, tokens: float) -> PolicyLoss:
    """Of log-probabilities [answers, tokens] at the sampling temperature."""
    import torch

    log_ratio = (new - old) * mask
    ratio = log_ratio.exp()
    plain, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = (torch.maximum(plain, bounded) * mask).sum() / tokens
    with torch.no_grad():
        clipped, kl = ((bounded > plain) * mask).sum(), ((ratio - 1 - log_ratio) * mask).sum()
    return PolicyLoss(loss, clipped, kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float, tokens: float) -> Tensor:
    """Of values [answers, tokens]; a clip of 0 is none."""
    import torch

    squared = (values - returns) ** 2
    if clip:
        bounded = old_values + (values - old_values).clamp(-clip, clip)
        squared = torch.maximum(squared, (bounded - returns) ** 2)
    return 0.5 * (squared * mask).sum() / tokens


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over the tokens: 1 = the value function knows all, 0 = no more than the mean."""
    known, wanted = values[mask.bool()].double(), returns[mask.bool()].double()
    variance = wanted.var(correction=0).item()
    return 1 - (wanted - known).var(correction=0).item() / variance if variance > 0 else float("nan")
