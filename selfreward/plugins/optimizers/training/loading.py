"""Models as they are trained: precision, dropout, adapters, and how long their context is.

Full training keeps float32 weights (a step of 1e-6 is lost in bfloat16) and computes in bfloat16 where a GPU runs a
bfloat16 model; the checkpoint is saved in the model's own precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfreward import ModelRef, StageError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedConfig, PreTrainedModel


def model_config(model: ModelRef) -> PreTrainedConfig:
    """The checkpoint's ``config.json``."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model.path, trust_remote_code=False)


def saved_dtype(model: ModelRef) -> torch.dtype:
    """The precision of the new checkpoint: ``model.dtype``, or for ``auto`` on a GPU that of the starting one."""
    import torch

    name = model.torch_dtype()
    found: Any = getattr(torch, name) if name != "auto" else model_config(model).dtype
    return found or torch.float32


def computes_in_bfloat16(model: ModelRef) -> bool:
    """Whether its float32 weights are trained under autocast."""
    import torch

    return torch.cuda.is_available() and saved_dtype(model) != torch.float32


def context_length(model: ModelRef) -> int | None:
    """Tokens that the model has positions for, where its config says."""
    return getattr(model_config(model).get_text_config(), "max_position_embeddings", None)


def load_model(model: ModelRef, dropout: float = 0.0, auto_class: Any = None, **details: Any) -> PreTrainedModel:
    """The weights, ready to be trained: float32, or the checkpoint's precision below a GPU's float32 adapters.

    They are loaded by ``auto_class`` (None: as a causal language model) with these ``details``.

    Raises:
        StageError: ``dropout`` is asked for and the architecture has none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    frozen = model.config.lora.r > 0 and torch.cuda.is_available()
    dtype = saved_dtype(model) if frozen else torch.float32
    loaded = (auto_class or AutoModelForCausalLM).from_pretrained(
        model.path, dtype=dtype, trust_remote_code=False, use_safetensors=True, **details
    )
    if not set_dropout(loaded, dropout) and dropout:
        raise StageError(f"optimizer.dropout={dropout}: {type(loaded).__name__} has no dropout; set it to 0")
    return loaded


def set_dropout(model: PreTrainedModel, share: float) -> int:
    """Set every dropout in the modules, not in the config that is saved; returns how many there are."""
    import torch

    modules = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) or hasattr(m, "attention_dropout")]
    for module in modules:
        setattr(module, "p" if isinstance(module, torch.nn.Dropout) else "attention_dropout", share)
    return len(modules)


def lora_config(start: ModelRef, model: PreTrainedModel) -> LoraConfig | None:
    """The adapters that ``model.lora`` asks for; None where all weights are trained."""
    from peft import LoraConfig

    lora = start.config.lora
    if not lora.r:
        return None
    names = lora.target_modules
    targets = names if names == "all-linear" else [name.strip() for name in names.split(",")]
    # of a sequence classifier, PEFT trains the whole head besides
    task = "SEQ_CLS" if type(model).__name__.endswith("ForSequenceClassification") else "CAUSAL_LM"
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=task
    )
