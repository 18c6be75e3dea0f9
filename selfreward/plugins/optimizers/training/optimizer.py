"""What every optimizer that takes gradient steps says of itself before it works."""

from __future__ import annotations

from selfreward import FileContext, Optimizer
from selfreward.plugins.optimizers.training.options import OptimizationOptions


class GradientOptimizer(Optimizer):
    """Base of the optimizers that train a model, or adapters on it, with AdamW."""

    config: OptimizationOptions

    def problems(self, context: FileContext) -> list[str]:
        lora = context.model_config.lora
        if lora.r and "lm_head" in lora.target_modules:
            return ["model.lora.target_modules: lm_head cannot have an adapter here; leave it out"]
        return []

    @property
    def checkpoints(self) -> bool:
        return self.config.checkpoint_steps > 0

    @property
    def passes(self) -> float:
        return self.config.epochs
