"""A Hugging Face checkpoint: a folder, or a name on the hub.

A folder holds ``config.json``, the weights as safetensors, and the tokenizer. A name (``org/name``) is fetched by the
libraries when it is first loaded; with ``HF_HUB_OFFLINE=1`` only what is cached is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfreward import Model, ModelConfig


@dataclass
class HuggingFaceConfig(ModelConfig):
    """Where the checkpoint is, besides the options every model has."""

    path: str = ""
    """Folder of the checkpoint (relative to the working folder, ``~`` allowed), or its name on the hub; required."""

    def problems(self) -> Iterator[str]:
        """No path, or one that can only be a folder and is not a checkpoint's."""
        folder = Path(self.path).expanduser()
        if not self.path.strip():
            yield "path is not set; give a checkpoint's folder or its name on the hub, model.path=org/name"
        elif folder.is_dir():
            if not (folder / "config.json").is_file():
                yield f"path={self.path} holds no config.json; give the folder of a Hugging Face checkpoint"
        elif self.path.startswith((".", "~", "/")) or self.path.count("/") > 1:  # a hub name has one slash at most
            yield f"path={self.path}: no such folder"


class HuggingFace(Model):
    """The checkpoint at ``config.path``."""

    config: HuggingFaceConfig

    def path(self) -> str:
        """The folder, or the name on the hub."""
        folder = Path(self.config.path).expanduser()
        return str(folder) if folder.is_dir() else self.config.path
