"""PPO's losses against the published formulas, token by token in Python floats, and against autograd's own word."""

from __future__ import annotations

import math

import pytest

from selfreward.plugins.optimizers.ppo.loss import explained_variance, policy_loss, value_loss

CLIP = 0.2


@pytest.fixture
def tensors():
    import torch

    torch.manual_seed(5)
    new, old, advantages, returns = torch.randn(4, 4, 6, dtype=torch.float64)
    mask = (torch.arange(6)[None] < torch.tensor([6, 2, 1, 4])[:, None]).double()
    return 0.3 * new, 0.3 * old, advantages, returns, mask


def test_the_policy_loss_is_the_clipped_objective(tensors):
    """arXiv:1707.06347 eq. 7: the mean of min(q A, clip(q) A), to be raised."""
    new, old, advantages, _, mask = tensors
    loss = policy_loss(new, old, advantages, mask, CLIP, mask.sum().item())
    objective, clipped, kl, tokens = 0.0, 0, 0.0, 0
    for row in range(4):
        for t in range(int(mask[row].sum())):
            q, a = math.exp(new[row, t] - old[row, t]), advantages[row, t].item()
            bounded = min(max(q, 1 - CLIP), 1 + CLIP)
            objective += min(q * a, bounded * a)
            clipped += bounded * a < q * a
            kl += q - 1 - math.log(q)
            tokens += 1
    assert loss.loss.item() == pytest.approx(-objective / tokens)
    assert (loss.clipped.item(), loss.kl.item()) == (clipped, pytest.approx(kl))
    assert 0 < clipped < tokens


def test_its_gradient_at_the_old_policy_is_the_policy_gradient(tensors):
    """Where q = 1 the gradient by a token's log-probability is -A / tokens (arXiv:1707.06347 eq. 1)."""
    _, old, advantages, _, mask = tensors
    new = old.clone().requires_grad_()
    policy_loss(new, old, advantages, mask, CLIP, mask.sum().item()).loss.backward()
    assert new.grad.flatten().tolist() == pytest.approx((-advantages * mask / mask.sum()).flatten().tolist())


@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"), [(1, 1.5, False), (1, 0.5, True), (-1, 0.5, False), (-1, 1.5, True)]
)
def test_beyond_the_clip_range_there_is_no_gradient_where_the_step_was_taken_already(advantage, ratio, moves):
    import torch

    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    policy_loss(new, torch.zeros_like(one), advantage * one, one, CLIP, 1.0).loss.backward()
    assert bool(new.grad.abs().sum() > 0) is moves


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_value_loss_is_the_greater_of_the_two_squares(tensors, clip):
    values, old, _, returns, mask = tensors
    by_hand, tokens = 0.0, 0
    for row in range(4):
        for t in range(int(mask[row].sum())):
            v, before, wanted = values[row, t].item(), old[row, t].item(), returns[row, t].item()
            squares = [(v - wanted) ** 2]
            squares += [(before + min(max(v - before, -clip), clip) - wanted) ** 2] if clip else []
            by_hand += 0.5 * max(squares)
            tokens += 1
    assert value_loss(values, old, returns, mask, clip, tokens).item() == pytest.approx(by_hand / tokens)


def test_explained_variance_is_1_for_the_truth_and_0_for_the_mean(tensors):
    import torch

    _, _, _, returns, mask = tensors
    mean = torch.full_like(returns, returns[mask.bool()].mean().item())
    assert explained_variance(returns, returns, mask) == pytest.approx(1)
    assert explained_variance(mean, returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, mean, mask))
