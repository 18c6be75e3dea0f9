"""Rewards, advantages and returns against the definitions, summed by hand in float64."""

from __future__ import annotations

import pytest

from selfreward.plugins.optimizers.ppo.advantages import generalised_advantages, token_rewards, whiten
from selfreward.plugins.optimizers.ppo.kl_control import next_beta

LENGTHS = (5, 1, 3)
GAMMA, LAM, BETA = 0.97, 0.9, 0.3


@pytest.fixture
def numbers():
    import torch

    torch.manual_seed(3)
    mask = torch.zeros(3, 5, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    kl, values = torch.randn(2, 3, 5, dtype=torch.float64)
    return torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64), kl, values, mask


def test_the_score_is_paid_on_the_last_token_and_kl_on_every_one(numbers):
    scores, kl, _, mask = numbers
    rewards = token_rewards(scores, kl, mask, BETA)
    for row, length in enumerate(LENGTHS):
        by_hand = [-BETA * kl[row, t].item() for t in range(length)]
        by_hand[-1] += scores[row].item()
        assert rewards[row].tolist() == pytest.approx([*by_hand, *[0.0] * (5 - length)])


def test_an_answer_that_weighs_nothing_is_paid_nothing(numbers):
    scores, kl, _, mask = numbers
    mask[1] = 0
    assert token_rewards(scores, kl, mask, BETA)[1].tolist() == [0.0] * 5


@pytest.mark.parametrize(("gamma", "lam"), [(GAMMA, LAM), (1.0, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_advantages_are_the_discounted_sum_of_residuals(numbers, gamma, lam):
    """arXiv:1506.02438 eq. 16, as the sum it is; with lambda 1 it is eq. 18, rewards to come less the value."""
    scores, kl, values, mask = numbers
    rewards = token_rewards(scores, kl, mask, BETA)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(LENGTHS):
        r, v = rewards[row].tolist(), [*values[row, :length].tolist(), 0.0]
        residuals = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        by_hand = [sum((gamma * lam) ** k * residuals[t + k] for k in range(length - t)) for t in range(length)]
        assert advantages[row, :length].tolist() == pytest.approx(by_hand)
        assert returns[row, :length].tolist() == pytest.approx([a + b for a, b in zip(by_hand, v, strict=False)])
        assert advantages[row, length:].abs().sum() == returns[row, length:].abs().sum() == 0
        if lam == 1.0:
            to_come = [sum(gamma**k * r[t + k] for k in range(length - t)) for t in range(length)]
            assert returns[row, :length].tolist() == pytest.approx(to_come)


def test_what_stands_in_the_padding_does_not_matter(numbers):
    scores, kl, values, mask = numbers
    rewards = token_rewards(scores, kl, mask, BETA)
    noisy = [generalised_advantages(rewards, values + noise * (1 - mask), mask, GAMMA, LAM) for noise in (0.0, 7.0)]
    assert all(first.equal(second) for first, second in zip(*noisy, strict=True))


def test_whitening_leaves_mean_0_and_variance_1_over_the_tokens(numbers):
    _, kl, _, mask = numbers
    tokens = kl[mask.bool()]
    white = whiten(kl, tokens.mean().item(), tokens.var(correction=0).item(), mask)
    assert white[mask.bool()].mean().item() == pytest.approx(0, abs=1e-12)
    assert white[mask.bool()].var(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert (white * (1 - mask)).abs().sum() == 0


def test_beta_follows_the_kl_as_published():
    """arXiv:1909.08593 §2.2: e = clip((KL - target) / target, -0.2, 0.2); beta (1 + K e), K = n / horizon."""
    assert next_beta(0.2, kl=6.6, answers=256, target=6.0, horizon=10_000) == pytest.approx(0.2 * (1 + 0.1 * 0.0256))
    assert next_beta(0.2, kl=60.0, answers=256, target=6.0, horizon=10_000) == pytest.approx(0.2 * (1 + 0.2 * 0.0256))
    assert next_beta(0.2, kl=0.0, answers=256, target=6.0, horizon=10_000) == pytest.approx(0.2 * (1 - 0.2 * 0.0256))
    assert next_beta(0.2, kl=60.0, answers=256, target=None, horizon=10_000) == 0.2
