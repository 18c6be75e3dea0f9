"""Reinforcement learning from human feedback: demonstrations, comparisons, then a policy against a reward model.

The three steps of arXiv:2203.02155 §3 (arXiv:2009.01325 §3), as rounds of the five stages:

1. sft = SFT(M0; demonstrations)
2. R1 = reward model(sft; human comparisons)
3. M1 = PPO(sft; rewards by R1, KL to sft)

With ``repeats`` the last two are done again, on fresh data (iterated online RLHF, arXiv:2204.05862 §4.5): the newest
policy answers prompts, a judge compares the answers, R_k is trained on all comparisons so far, and the policy goes on
against it. Comparisons are the data's ranked answers, whatever format they come in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from selfreward import Data, Recipe, Round, RoundConfig, UserError, option


def _human(split: str, selector: str, **optimizer: str) -> RoundConfig:
    """A round whose prompts, answers and ranks come from people."""
    return RoundConfig(
        prompt_generator={"name": "dataset", "split": split},
        sampler={"name": "human", "split": split},
        judge={"name": "human_rank"},
        selector={"name": selector},
        optimizer=optimizer,
    )


def _fresh() -> RoundConfig:
    """A round in which the newest policy answers and a judge compares."""
    return RoundConfig(
        prompt_generator={"name": "dataset", "split": "ift", "n": 256},
        sampler={"name": "nucleus"},
        judge="llm_cot",
        selector={"name": "all_pairs"},
        optimizer={"name": "reward_model", "init_from": "sft"},
    )


@dataclass
class RlhfConfig:
    """The rounds before and between those of the policy."""

    repeats: int = option(1, ge=1)
    """How often reward model and policy are trained: 1 = classic RLHF, more = iterated online RLHF."""
    sft: RoundConfig = field(default_factory=lambda: _human("ift", "demonstrations", name="sft"))
    """Supervised fine-tuning on demonstrations; makes ``sft``."""
    reward: RoundConfig = field(
        default_factory=lambda: _human("ranked", "all_pairs", name="reward_model", init_from="sft")
    )
    """The first reward model, on human comparisons; makes ``R1``."""
    fresh: RoundConfig = field(default_factory=_fresh)
    """The later ones: answers of the newest policy, compared by ``recipe.fresh.judge``; makes ``R2``, ``R3``, ..."""


class Rlhf(Recipe):
    """M0 -> sft -> R1 -> M1 (-> R2 -> M2 ...)."""

    config: RlhfConfig

    def rounds(self, loop: Round, iterations: int, data: Data) -> Iterator[Round]:
        """SFT; then a reward model and ``iterations`` rounds of the loop against it, ``repeats`` times."""
        if not data.split("ranked", 0):
            raise UserError(
                "recipe=rlhf trains its reward model on ranked answers to prompts that are not trained on otherwise, "
                "and this data has none: give it a share of the ranked conversations (data.ranked=0.5)"
            )
        yield Round.of("sft", self.config.sft, makes="sft")
        compared: list[str] = []
        made = 0
        for k in range(1, self.config.repeats + 1):
            how, name = (self.config.reward, "reward") if k == 1 else (self.config.fresh, f"reward-{k}")
            yield Round.of(name, how, makes=f"R{k}", train_on=tuple(compared))
            compared.append(name)
            for _ in range(iterations):
                made += 1
                yield loop.at(made, makes=f"M{made}")
