"""Models: what is aligned (the ``model`` group) and the roles that models play.

Roles: ``base`` (the checkpoint that ``model=`` names), ``policy`` (the newest one), and every earlier policy by the
paper's name: ``M0``, ``sft``, ``M1``, ``M2``, ... A plugin's config names a role, never a weight file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.core.contracts.options import option

if TYPE_CHECKING:
    from selfreward.core.text.chat import Chat


class Dtype(Enum):
    """Precision of the weights while they are run and trained."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"


@dataclass
class LoraOptions:
    """Low-rank adapters (arXiv:2106.09685), merged after training, so that every model is a whole checkpoint."""

    r: int = option(0, ge=0)
    """Rank; 0 trains all weights."""
    alpha: float = option(16.0, gt=0)
    """Scale of the adapter; its product is multiplied by alpha / r."""
    dropout: float = option(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str = "all-linear"
    """Which layers get one: ``all-linear``, or names separated by commas (``q_proj,v_proj``)."""


@dataclass
class ModelConfig:
    """Options every ``model`` has."""

    dtype: Dtype = Dtype.auto
    """float32, bfloat16, or auto: float32 on a CPU, the checkpoint's own on a GPU."""
    chat_template: str | None = None
    """Jinja chat template, as text or as a file's path; needed for base models whose tokenizer has none."""
    rubric: str = "additive"
    """The judge prompt this model is asked with where ``judge.rubric`` does not say."""
    lora: LoraOptions = field(default_factory=LoraOptions)
    """Train low-rank adapters instead of all weights: ``model.lora.r=16``."""


class Model(ABC):
    """A ``model`` plugin: where the base checkpoint is."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    @abstractmethod
    def path(self) -> str:
        """Folder of the base checkpoint, or its name on the hub."""


@dataclass(frozen=True)
class ModelRef:
    """A model by the name of its role, with what is needed to load it.

    ``key`` identifies the content: equal keys mean equal weights, tokenizer, template and precision.
    """

    name: str
    path: str
    key: str
    config: ModelConfig
    weights: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """Tensors by state-dict name that stand in place of the folder's: a model in training, which no file holds."""

    def chat(self) -> Chat:
        """The tokenizer with its template (:class:`selfreward.Chat`)."""
        from selfreward.core.text.chat import Chat

        return Chat.load(self.path, self.config.chat_template)

    def torch_dtype(self) -> str:
        """``float32``, ``bfloat16`` or ``auto`` as ``from_pretrained(dtype=...)`` takes it."""
        import torch

        if self.config.dtype is not Dtype.auto:
            return self.config.dtype.value
        return "auto" if torch.cuda.is_available() else "float32"

    @property
    def is_local(self) -> bool:
        """Whether the path is a folder on this machine."""
        return Path(self.path).is_dir()
