"""Self-Rewarding Language Models: seed the model with two skills, then let it teach itself.

Section 2 of the paper (arXiv:2401.10020), as rounds of the five stages:

- §2.1 Two seed sets. IFT: instructions with the answers people ranked top. EFT: judge prompts with verdicts that agree
  with the human ranking.
- §2.4 M0 is the pre-trained model; M1 = SFT(M0; IFT + EFT).
- §2.2-2.4 Each iteration t, M_t writes instructions, answers and scores; M_{t+1} = DPO(M_t; AIFT(M_t)).

``sft``, M0 fine-tuned on IFT alone, is the baseline that the paper compares with and the model that writes the EFT
verdicts. Without EFT, the paper's ablation, it *is* M1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from selfreward import Data, Recipe, Round, RoundConfig


def _seed_round(split: str, init_from: str) -> RoundConfig:
    """A round whose prompts, answers and ranks come from people."""
    return RoundConfig(
        prompt_generator={"name": "dataset", "split": split},
        sampler={"name": "human", "split": split},
        judge={"name": "human_rank"},
        selector={"name": "demonstrations"},
        optimizer={"name": "sft", "init_from": init_from},
    )


@dataclass
class SelfRewardingConfig:
    """The rounds before the loop."""

    ift: RoundConfig = field(default_factory=lambda: _seed_round("ift", "policy"))
    """Instruction fine-tuning: M0 learns to answer; makes ``sft``."""
    eft: RoundConfig = field(default_factory=lambda: _seed_round("eft", "M0"))
    """Evaluation fine-tuning: M0 learns to answer and to judge, from both sets; makes ``M1``."""
    use_eft: bool = True
    """Whether there is an EFT round; EFT off is the paper's ablation, and what happens where the data has none."""


class SelfRewarding(Recipe):
    """M0 -> sft, M0 -> M1 -> M2 -> M3 ..."""

    config: SelfRewardingConfig

    def rounds(self, loop: Round, iterations: int, data: Data) -> Iterator[Round]:
        """IFT, EFT, then the loop ``iterations`` times."""
        ift = Round.of("ift", self.config.ift, makes="sft")
        if self.config.use_eft and data.split("eft", 0):  # whether there is any does not depend on the seed
            yield ift
            yield Round.of("eft", self.config.eft, makes="M1", train_on=("ift",))
        else:
            yield dataclasses.replace(ift, makes="M1")
        for t in range(1, iterations + 1):
            yield loop.at(t, makes=f"M{t + 1}")
