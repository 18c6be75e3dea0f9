"""What an engine is given of a model in training: the weights that would be saved, and nothing is changed by it."""

from __future__ import annotations

import pytest

ADAPTED = ("q_proj", "down_proj")


@pytest.fixture
def adapted(checkpoint):
    """A model with adapters that do something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(ADAPTED)))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.1)
    return model


def test_of_a_plain_model_they_are_its_own(checkpoint, load64):
    from selfreward.plugins.optimizers.training.policy_weights import policy_weights

    model = load64(checkpoint)
    with policy_weights(model) as weights:
        assert list(weights) == list(model.state_dict())
        assert weights["lm_head.weight"].data_ptr() == model.lm_head.weight.data_ptr()


def test_adapters_are_merged_as_they_are_when_the_model_is_saved(adapted, checkpoint, load64):
    import copy

    import torch

    from selfreward.plugins.optimizers.training.policy_weights import policy_weights

    saved = copy.deepcopy(adapted).merge_and_unload().state_dict()
    with policy_weights(adapted) as weights:
        seen = {name: weight.clone() for name, weight in weights.items()}
    assert seen.keys() == saved.keys() == load64(checkpoint).state_dict().keys()
    assert all(torch.equal(seen[name], saved[name]) for name in saved)


def test_what_trains_is_not_changed_by_a_bit(adapted):
    import torch

    from selfreward.plugins.optimizers.training.policy_weights import policy_weights

    ids = torch.arange(5, 25)[None]
    before, logits = {n: w.clone() for n, w in adapted.state_dict().items()}, adapted(input_ids=ids).logits
    for _ in range(3):
        with policy_weights(adapted) as weights:
            assert not torch.equal(
                weights["model.layers.0.self_attn.q_proj.weight"],
                before["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"],
            )
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.state_dict().items())
    after = adapted(input_ids=ids).logits
    assert torch.equal(after, logits)
    after.sum().backward()
    trained = [weight.grad for name, weight in adapted.named_parameters() if ".lora_" in name]
    assert trained
    assert all(grad is not None and grad.abs().sum() > 0 for grad in trained)


def test_a_failure_in_the_block_leaves_the_model_whole(adapted):
    import torch

    from selfreward.plugins.optimizers.training.policy_weights import policy_weights

    before = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    with pytest.raises(RuntimeError, match="engine"), policy_weights(adapted):
        raise RuntimeError("engine")
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.state_dict().items())
    assert not any(getattr(module, "merged", False) for module in adapted.modules())
