"""What is said of training that has gone wrong: a loss that is no number, a policy that ran away from its reference."""

from __future__ import annotations

from selfreward import StageError, TrainingContext
from selfreward.plugins.optimizers.training.options import OptimizationOptions


def diverged(loss: float, grad_norm: float, where: str, options: OptimizationOptions, so_far: str = "") -> StageError:
    """Of a step whose loss or gradient is not finite."""
    return StageError(
        f"training diverged at {where}: loss {loss:.4g}, gradient norm {grad_norm:.4g}; {so_far}"
        f"lower optimizer.lr (now {options.lr:g}) or raise optimizer.warmup (now {options.warmup:g})"
    )


def ran_away(kl: float, max_kl: float, where: str, context: TrainingContext, so_far: str, ways_out: str) -> StageError:
    """Of a KL to the reference, in nats an answer."""
    return StageError(
        f"the KL to the reference {context.reference.name} has grown to {kl:.4g} nats an answer ({where}), beyond "
        f"optimizer.max_kl={max_kl:g}: the answers have little to do with the reference's any more; {so_far}; "
        f"ways out: {ways_out}"
    )
