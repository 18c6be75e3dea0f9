"""CPU threads while a model trains: below some size, one is several times faster than many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALL = 50_000_000
"""Parameters below which one CPU thread is several times faster than many."""


@contextmanager
def cpu_threads(wanted: int, model: PreTrainedModel) -> Iterator[None]:
    """Torch on as many threads as the option ``threads`` says; afterwards on as many as before."""
    import torch

    before = torch.get_num_threads()
    small = not torch.cuda.is_available() and model.num_parameters() < SMALL
    torch.set_num_threads(wanted or (1 if small else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
