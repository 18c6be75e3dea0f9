"""A checkpoint folder and the tensors of a model in training, as this engine puts them into memory.

A checkpoint whose ``config.json`` names a ``*ForSequenceClassification`` is a reward model, any other a language model.
Weights come from safetensors, and no code of the checkpoint is run.
"""

from __future__ import annotations

import gc
import inspect
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from selfreward import ModelRef, StageError, UserError

_SHOWN = 3  # names in a message


def model_problems(model: ModelRef, device: str) -> list[str]:
    """Why this engine could not run a checkpoint, as far as that can be told without its weights."""
    found = []
    if device.startswith("cuda") and not torch.cuda.is_available():
        found.append(f"engine.device={device}: torch sees no GPU here; set engine.device=auto")
    folder = Path(model.path)
    if model.is_local and not any(folder.glob("*.safetensors")):
        pickled = next(folder.glob("*.bin"), None)
        there = f"only {pickled.name}, a pickle, which may run code when it is read" if pickled else "no weights"
        found.append(
            f"{model.path}: there is {there}; engine=transformers reads *.safetensors. Convert it where you trust it: "
            "load it with transformers and save_pretrained() it again"
        )
    try:
        config = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as problem:
        return [*found, f"{model.path}: engine=transformers cannot read its config.json: {problem}"]
    look = _classifier_problems if _classifies(config) else _causal_problems
    return [*found, *look(model.path, config)]


def is_reward_model(model: ModelRef) -> bool:
    """Whether the folder holds a sequence classifier."""
    return _classifies(AutoConfig.from_pretrained(model.path, trust_remote_code=False))


def _classifies(config: Any) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _causal_problems(path: str, config: Any) -> list[str]:
    runner: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if runner is None:
        return [f"{path}: transformers runs no {config.model_type} as a causal language model"]
    if "past_key_values" not in inspect.signature(runner.forward).parameters:
        return [f"{path}: engine=transformers runs models with a key-value cache; this one has none"]
    return []


def _classifier_problems(path: str, config: Any) -> list[str]:
    if MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None) is None:
        return [f"{path}: transformers runs no {config.model_type} as a sequence classifier"]
    if config.is_encoder_decoder:
        return [f"{path}: engine=transformers runs reward models that are causal; {config.model_type} is not"]
    if config.num_labels != 1:
        return [f"{path}: a reward model gives one number; this classifier has {config.num_labels} labels"]
    return []


def load(model: ModelRef) -> Any:
    """The language model or reward model in a folder, with ``model.weights`` in place of its own where there are any.

    Raises:
        UserError: it cannot be loaded; says why.
        StageError: the weights are not those of a model like this.
    """
    try:
        kind: Any = AutoModelForSequenceClassification if is_reward_model(model) else AutoModelForCausalLM
        loading: Any = kind.from_pretrained(
            model.path,
            dtype=model.torch_dtype(),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        loaded, report = loading
    except (OSError, ValueError, KeyError, ImportError) as problem:
        raise UserError(f"{model.path}: engine=transformers cannot load this model: {problem}") from None
    if report["missing_keys"]:  # they would be filled with random numbers
        missing = ", ".join(sorted(report["missing_keys"])[:_SHOWN])
        raise UserError(
            f"{model.path}: {len(report['missing_keys'])} weights are missing from the checkpoint ({missing})"
        )
    if model.weights is not None:
        put(model.weights, loaded)
    return loaded


def put(weights: Mapping[str, torch.Tensor], into: Any) -> None:
    """Copy tensors over those of a model, by the names of its state dict.

    Of names that are one tensor there (a tied ``lm_head``) any may be given. Nothing is copied unless all fit.

    Raises:
        StageError: a weight is missing, unknown, of another shape, or tied there and not in ``weights``.
    """
    places = into.state_dict()
    twins = defaultdict(list)
    for name, place in places.items():
        twins[place.data_ptr(), place.shape].append(name)
    given = [[name for name in names if name in weights] for names in twins.values()]
    missing = [names[0] for names, found in zip(twins.values(), given, strict=True) if not found]
    wrong = {
        "missing": missing,
        "unknown": [name for name in weights if name not in places],
        "of another shape": [n for n in weights if n in places and weights[n].shape != places[n].shape],
    }
    if any(wrong.values()):
        said = [f"{len(names)} {how} ({', '.join(names[:_SHOWN])})" for how, names in wrong.items() if names]
        raise StageError(
            f"the weights in training are not those of {into.config._name_or_path}: {'; '.join(said)}. They are whole "
            "tensors by the names of its state dict, with adapters merged"
        )
    for first, *others in given:
        if unlike := [name for name in others if not _same(weights[name], weights[first])]:
            raise StageError(f"{first} and {unlike[0]} are one tensor in the checkpoint, and two in training")
    with torch.no_grad():
        for first, *_ in given:
            places[first].copy_(weights[first])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def release_memory() -> None:
    """Give back the memory of a model that nothing refers to any more."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
