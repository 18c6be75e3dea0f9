"""Random pair: a control for selection. Two different finished answers of a prompt, whatever their scores.

chosen, rejected = two candidates drawn without looking at the scores; the draw is a function of the prompt's id.
With it a preference optimizer learns nothing but noise, so a gain in its place is not due to the judge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from selfreward import JudgedPrompt, Preference, Selector


@dataclass
class RandomPairConfig:
    """No options."""


class RandomPair(Selector):
    """At most one pair a prompt; equal texts make none."""

    writes = Preference
    config: RandomPairConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Preference]:
        different = {answer.text: answer for answer in judged.finished_by_score()}
        if len(different) > 1:
            # the order of the dict follows the scores, which must not matter
            answers = [different[text] for text in sorted(different)]
            chosen, rejected = random.Random(judged.prompt.prompt_id).sample(answers, 2)
            yield Preference.of(judged.prompt, chosen=chosen, rejected=rejected)
