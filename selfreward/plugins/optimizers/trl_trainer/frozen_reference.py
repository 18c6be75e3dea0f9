"""The frozen reference of a preference loss: its log-probabilities are computed once, before the first step.

The reference is always ``context.reference``. Left to itself, TRL would load it again from the path that the policy's
config remembers; and where it computes log-probabilities beforehand, it would leave cache files and a progress bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from selfreward import TrainingContext
from selfreward.plugins.optimizers.training.loading import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OWN_REFERENCE: dict[str, Any] = {
    "precompute_ref_log_probs": True,
    # our own ``dropout`` rules the model, and TRL's switch would silence that of the adapters too
    "disable_dropout": False,
}
"""What a trainer is told, so that it loads no reference and takes log-probabilities that were "computed beforehand"."""


def reference_model(context: TrainingContext) -> PreTrainedModel | None:
    """The reference for a TRL trainer; None where the start, before its first step, is the reference itself."""
    return None if context.reference.key == context.start.key else load_model(context.reference)


class FrozenReference:
    """What a TRL trainer with a reference does in place of its own ways, on rows that are token ids already."""

    reference_columns: ClassVar[tuple[str, ...]]
    """Columns for what ``compute_ref_log_probs`` returns."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self: Any, dataset: Any, name: str, batch_size: int) -> Any:
        """Add the columns; the reference is let go after the last set.

        Without a reference model the policy itself, not yet trained, is the reference; adapters are off.
        """
        import torch
        from torch.utils.data import DataLoader
        from trl.models import prepare_deepspeed

        model: Any = self.ref_model or self.model
        if self.is_deepspeed_enabled and self.ref_model is None:
            model = prepare_deepspeed(model, self.accelerator)
        model.eval()
        lengths = list(dataset["length"])
        order = sorted(range(len(lengths)), key=lengths.__getitem__)  # rows of like length meet, so less is padded
        loader = DataLoader(dataset, batch_size=batch_size, sampler=order, collate_fn=self.data_collator)
        parts = []
        for batch in self.accelerator.prepare(loader):
            batch.pop("number", None)
            sums = torch.stack(self.compute_ref_log_probs(model, batch), 1)
            parts.append(self.accelerator.gather_for_metrics(sums).cpu())
        if name == "eval" or self.eval_dataset is None:
            self.ref_model = None
        found = torch.cat(parts)[torch.tensor(order).argsort()]
        for column, values in zip(self.reference_columns, found.T.tolist(), strict=True):
            dataset = dataset.add_column(column, values)
        return dataset
