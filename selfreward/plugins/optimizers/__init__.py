"""Stage 5: the next model, each with the selector it brings along."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.optimizers.group_relative import Grpo, Rloo
from selfreward.plugins.optimizers.kto import Kto
from selfreward.plugins.optimizers.ppo.optimizer import Ppo
from selfreward.plugins.optimizers.preference import Dpo, Ipo, Rpo, Sppo
from selfreward.plugins.optimizers.reference_free import Orpo, Simpo
from selfreward.plugins.optimizers.reward_model import RewardModel
from selfreward.plugins.optimizers.sft import Sft


@hookimpl
def selfreward_optimizers() -> list[Plugin]:
    """The built-in optimizers."""
    return [
        Plugin.of("ppo", Ppo, "arXiv:1707.06347, arXiv:2203.02155 §3.5", partner="prompts"),
        Plugin.of("grpo", Grpo, "arXiv:2402.03300 §4.1", partner="prompts"),
        Plugin.of("rloo", Rloo, "arXiv:2402.14740", partner="prompts"),
        Plugin.of("sft", Sft, "arXiv:2401.10020 §2.1", partner="positive_only"),
        Plugin.of("dpo", Dpo, "arXiv:2305.18290 §4", partner="best_worst"),
        Plugin.of("ipo", Ipo, "arXiv:2310.12036 §5", partner="best_worst"),
        Plugin.of("rpo", Rpo, "arXiv:2404.19733 §2", partner="best_worst"),
        Plugin.of("sppo", Sppo, "arXiv:2405.00675 §4", partner="best_worst"),
        Plugin.of("kto", Kto, "arXiv:2402.01306 §4", partner="best_worst"),
        Plugin.of("simpo", Simpo, "arXiv:2405.14734 §2", partner="best_worst"),
        Plugin.of("orpo", Orpo, "arXiv:2403.07691 §4", partner="best_worst"),
        Plugin.of("reward_model", RewardModel, "arXiv:1706.03741 eq. 1, arXiv:2009.01325 §3.4", partner="all_pairs"),
    ]
