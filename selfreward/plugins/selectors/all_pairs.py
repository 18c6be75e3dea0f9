"""All pairs: every two answers of a prompt that score differently, the better one chosen.

K answers in K different places make K choose 2 pairs, from which a reward model learns.
Source: arXiv:2203.02155 §3.5, arXiv:2305.13735 §2.1.

The pairs of a prompt share answers. Shuffled, they overfit a large model within one pass, says the first source: hold
prompts out to see it (``optimizer.holdout``), and take fewer (``max_pairs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

from selfreward import JudgedPrompt, Preference, ScoredCandidate, Selector, option


@dataclass
class AllPairsConfig:
    """Options of ``selector=all_pairs``."""

    margin: float = option(0.0, ge=0)
    """Score difference, in rubric points, that a pair must exceed."""
    max_pairs: int = option(0, ge=0)
    """Pairs of one prompt at most, those with the largest difference first; 0 = all."""


class AllPairs(Selector):
    """Pairs every answer with every worse one that says something else."""

    writes = Preference
    config: AllPairsConfig

    def select(self, judged: JudgedPrompt) -> Iterator[Preference]:
        """Yield the pairs, largest difference first. Candidates that are unscored, empty or cut off do not compete.

        Among equal differences the pair of the better answers comes first. Two texts make one pair, however often each
        was sampled.
        """
        pairs = combinations(judged.finished_by_score(), 2)
        apart = [(a, b) for a, b in pairs if a.text != b.text and a.score - b.score > self.config.margin]
        different: dict[tuple[str, str], tuple[ScoredCandidate, ScoredCandidate]] = {}
        for a, b in sorted(apart, key=lambda pair: pair[1].score - pair[0].score):
            different.setdefault((a.text, b.text), (a, b))
        for chosen, rejected in islice(different.values(), self.config.max_pairs or None):
            yield Preference.of(judged.prompt, chosen=chosen, rejected=rejected)
