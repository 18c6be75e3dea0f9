"""Self-Rewarding Language Models: seed the model with two skills, then let it teach itself.

Section 2 of the paper (arXiv:2401.10020), as rounds of the five stages:

- §2.1 Two seed sets. IFT: instructions with the answers people ranked top. EFT: judge prompts with verdicts that agree
  with the human ranking.
- §2.4 M0 is the pre-trained model; M1 = SFT(M0; IFT + EFT).
- §2.2-2.4 Each iteration t, M_t writes instructions, answers and scores; M_{t+1} = DPO(M_t; AIFT(M_t)).

``sft``, M0 fine-tuned on IFT alone, is the baseline that the paper compares with and the model that writes the EFT
verdicts (``eft.source=ranked``): it reviews human replies, and the reviews that order them as people did are kept.
Without EFT, the paper's ablation, it *is* M1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from selfreward import Data, Recipe, Round, RoundConfig, UserError


def _seed_round(split: str, init_from: str) -> RoundConfig:
    """A round whose prompts, answers and ranks come from people."""
    return RoundConfig(
        prompt_generator={"name": "dataset", "split": split},
        sampler={"name": "human", "split": split},
        judge={"name": "human_rank"},
        selector={"name": "demonstrations"},
        optimizer={"name": "sft", "init_from": init_from},
    )


class EftSource(Enum):
    """Where the verdicts come from that M1 learns to judge from."""

    file = "file"
    ranked = "ranked"
    none = "none"


@dataclass
class EftConfig(RoundConfig):
    """Evaluation fine-tuning on verdicts that the data holds."""

    source: EftSource = EftSource.file
    """file: verdicts in the data (split ``eft``); ranked: made from ranked human replies, by ``eft_ranked``; none."""


def _ranked_round() -> RoundConfig:
    """The SFT baseline reviews ranked human replies; M0 learns from the reviews that agree with the ranks."""
    return RoundConfig(
        prompt_generator={"name": "dataset", "split": "ranked"},
        sampler={"name": "human", "split": "ranked"},
        judge={"name": "llm_cot", "model": "sft", "votes": 8},
        selector={"name": "agreement"},
        optimizer={"name": "sft", "init_from": "M0"},
        pair_filters={"score_balance": {"name": "score_balance"}},
    )


@dataclass
class SelfRewardingConfig:
    """The rounds before the loop."""

    ift: RoundConfig = field(default_factory=lambda: _seed_round("ift", "policy"))
    """Instruction fine-tuning: M0 learns to answer; makes ``sft``."""
    eft: EftConfig = field(default_factory=lambda: EftConfig(**vars(_seed_round("eft", "M0"))))
    """Evaluation fine-tuning: M0 learns to answer and to judge, from both sets; makes ``M1``. Not where the data has no
    verdicts."""
    eft_ranked: RoundConfig = field(default_factory=_ranked_round)
    """The same round where ``eft.source=ranked``."""


class SelfRewarding(Recipe):
    """M0 -> sft, M0 -> M1 -> M2 -> M3 ..."""

    config: SelfRewardingConfig

    def rounds(self, loop: Round, iterations: int, data: Data) -> Iterator[Round]:
        """IFT, EFT, then the loop ``iterations`` times."""
        ift = Round.of("ift", self.config.ift, makes="sft")
        source = self.config.eft.source
        made = source is EftSource.ranked
        name, split, eft = ("eft_ranked", "ranked", self.config.eft_ranked) if made else ("eft", "eft", self.config.eft)
        has_verdicts = bool(data.split(split, 0))  # whether there are any does not depend on the seed
        if made and not has_verdicts:
            raise UserError(
                "recipe.eft.source=ranked makes verdicts from ranked replies to prompts that are not trained on "
                "otherwise, and this data has none: give it a share of the ranked conversations (data.ranked=0.3)"
            )
        if source is not EftSource.none and has_verdicts:
            yield ift
            yield Round.of(name, eft, makes="M1", train_on=("ift",))
        else:
            yield dataclasses.replace(ift, makes="M1")
        for t in range(1, iterations + 1):
            yield loop.at(t, makes=f"M{t + 1}")
