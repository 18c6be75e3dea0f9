"""New weights for an engine that runs: the next policy has the shape of this one, and so has this one in training.

Every worker of vLLM reads the new safetensors itself, layer by layer, into the tensors that are there, so CUDA graphs
and the key-value cache stay. The tensors of a model in training are handed to a worker in this process as they are; for
workers in processes of their own they are written to a folder that is deleted once they have read it.

What vLLM 0.32 leaves out is a layer that shares its weight (``lm_head`` of a tied checkpoint): no tensor in the file
bears its name, so it is not processed again, and where processing packs the weight for the hardware (on a CPU) it would
go on with the packed old one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from selfreward import Chat, ModelRef, StageError

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3  # names in a message
_HEADS = ("lm_head.weight", "embed_out.weight")


class Reload:
    """What vLLM's worker class is extended by: ``collective_rpc("reload_checkpoint", args=(path,))``."""

    reload_weights: Any
    get_model: Any

    def reload_checkpoint(self, path: str) -> None:
        """Replace the weights by those of a checkpoint folder with the same tensors."""
        self.reload_weights(weights_path=path)
        self._process_shared()

    def reload_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the weights by these tensors, which are copied."""
        self.reload_weights(weights_iterator=iter(tensors.items()))
        self._process_shared()

    def _process_shared(self) -> None:
        seen: set[int] = set()
        for layer in self.get_model().modules():
            weights = {id(weight) for weight in layer.parameters(recurse=False)}
            if weights & seen:
                layer.quant_method.process_weights_after_loading(layer)
            seen |= weights


def shape(model: ModelRef, chat: Chat) -> Any:
    """What two models have in common whose weights can be exchanged in place; None: nothing can be said.

    The config, every tensor's name, shape and type, the tokenizer, and what ends a reply.
    """
    if not model.is_local:
        return None
    folder = Path(model.path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    tokenizer = chat.tokenizer.backend_tokenizer.to_str()
    return config, tensors(folder), tokenizer, chat.stop_ids, model.torch_dtype()


def in_training(model: ModelRef) -> dict[str, Tensor]:
    """``model.weights`` by the names of the checkpoint's file; a tied head, which the file need not hold, left out.

    vLLM keeps what it is not given and passes over what it does not know, so both are looked for here.

    Raises:
        StageError: a weight is missing, unknown, or of another shape.
    """
    from transformers import AutoConfig

    weights = dict(model.weights or {})
    wanted = {name: size for name, (_, size) in tensors(Path(model.path)).items()}
    if AutoConfig.from_pretrained(model.path).get_text_config(decoder=True).tie_word_embeddings:
        for name in _HEADS:
            weights.pop(name, None)
            wanted.pop(name, None)
    wrong = {
        "missing": [name for name in wanted if name not in weights],
        "unknown": [name for name in weights if name not in wanted],
        "of another shape": [n for n, size in wanted.items() if n in weights and tuple(weights[n].shape) != size],
    }
    if any(wrong.values()):
        said = [f"{len(names)} {how} ({', '.join(names[:_SHOWN])})" for how, names in wrong.items() if names]
        raise StageError(
            f"engine=vllm: the weights in training are not those in the files of {model.path}: {'; '.join(said)}. They "
            "are whole tensors with adapters merged; where transformers names them otherwise than the files do, use "
            "engine=transformers"
        )
    return weights


@contextmanager
def as_folder(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """A folder that holds these tensors for as long as it is needed."""
    from safetensors.torch import save_file

    with TemporaryDirectory(prefix="selfreward-weights-") as folder:
        copies = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
        save_file(copies, Path(folder) / "model.safetensors")
        yield folder


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor in a checkpoint, read from the files' headers."""
    from safetensors import safe_open

    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                entry = file.get_slice(name)
                found[name] = entry.get_dtype(), tuple(entry.get_shape())
    return found
