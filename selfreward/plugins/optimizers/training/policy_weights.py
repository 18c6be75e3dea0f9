"""The weights of a model in training, as an engine takes them: whole tensors by the names of the checkpoint.

Adapters are merged as they will be when the model is saved: W + (alpha / r) B A (LoRA, arXiv:2106.09685 §4.1).
Unmerging would subtract what was added and leave the frozen W changed in its last bits, by more with every call; so the
merged weights are tensors of their own, and W itself is put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


@contextmanager
def policy_weights(model: PreTrainedModel | PeftModel) -> Iterator[Mapping[str, Tensor]]:
    """The state dict of a model that no wrapper stands around; copy what must outlive the ``with`` block.

    Of a plain model these are the weights themselves; of one with adapters, the adapted ones take memory until the end
    of the block, in which the model must not be run.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        yield model.state_dict()
        return
    base = model.get_base_model()
    frozen = [(weight, weight.data) for name, weight in base.named_parameters() if ".lora_" not in name]
    model.merge_adapter(safe_merge=True)  # into new tensors
    try:
        merged = {name: weight for name, weight in base.state_dict().items() if ".lora_" not in name}
        yield {name.replace(".base_layer.", "."): weight for name, weight in merged.items()}
    finally:
        model.unmerge_adapter()
        for weight, data in frozen:
            weight.data = data
