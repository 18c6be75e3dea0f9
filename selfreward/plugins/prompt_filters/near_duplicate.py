"""Near duplicates: a prompt is dropped when an existing one shares most of its shingles.

J(a, b) = |A ∩ B| / |A ∪ B|, over the sets A and B of k words in a row. MinHash keeps, for each of num_perm hash
functions, the least hash over the set, which two sets share with probability J; an index by bands of r of them gives
the existing prompts that agree in a band, a pair at the threshold t with probability 1 − (1 − t^r)^b. Their J is then
computed as it is, so nothing is dropped in error. The time per prompt hardly grows with their number, the memory is
about 10 kB each: for where ``rouge_l``, which finds more, is too slow.

t = 0.7 over three words takes one word changed in the middle of twenty for a duplicate, or punctuation and case alone;
one changed in the middle of ten makes a new prompt.
Source: Broder 1997; for language models arXiv:2107.06499 §4.2; index: datasketch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfreward import FileContext, Filter, Prompt, option
from selfreward.formats.words import words

if TYPE_CHECKING:
    from datasketch import MinHash

_FOUND = 0.98
"""Share of the pairs right at the threshold that the index has to find; of closer ones it finds more."""


@dataclass
class NearDuplicateConfig:
    """Options of ``prompt_filters=[near_duplicate]``."""

    threshold: float = option(0.7, gt=0, le=1)
    """Share of common shingles (Jaccard) with an existing prompt from which on a prompt is dropped."""
    shingle: int = option(3, ge=1)
    """Words in a shingle; a shorter prompt is one shingle."""
    num_perm: int = option(128, ge=2)
    """Hash functions of a MinHash; more of them find more selectively, and cost time and memory."""
    seed: int = option(1, ge=0, lt=2**32)
    """Which hash functions."""


class NearDuplicate(Filter):
    """Compares each prompt with those of the seeds and of what was kept before it that share a band."""

    config: NearDuplicateConfig

    def problems(self, context: FileContext) -> list[str]:
        installed = importlib.util.find_spec("datasketch")
        return [] if installed else ["it needs datasketch: pip install 'selfreward[dedup]'"]

    def begin(self, existing: Sequence[Prompt]) -> None:
        from datasketch import MinHash, MinHashLSH

        # the scheme is named, so that another version of the library gives the same hashes
        self.empty = MinHash(self.config.num_perm, self.config.seed, scheme="affine32")
        self.index = MinHashLSH(
            num_perm=self.config.num_perm, params=bands(self.config.threshold, self.config.num_perm)
        )
        self.texts: list[str] = []
        for prompt in existing:
            self.kept(prompt)

    def reason(self, prompt: Prompt) -> str | None:
        ours = self.shingles(prompt.text)
        if not ours:
            return None
        for other in self.index.query(self.minhash(ours)):
            theirs = self.shingles(self.texts[other])
            if len(ours & theirs) >= self.config.threshold * len(ours | theirs) - 1e-9:  # 0.7 · 10 is above 7
                return "near duplicate"
        return None

    def kept(self, prompt: Prompt) -> None:
        if shingles := self.shingles(prompt.text):
            self.index.insert(len(self.texts), self.minhash(shingles), check_duplication=False)
            self.texts.append(prompt.text)

    def shingles(self, text: str) -> set[str]:
        """The runs of ``shingle`` words."""
        found, k = words(text), self.config.shingle
        starts = range(max(len(found) - k, 0) + 1) if found else ()
        return {" ".join(found[start : start + k]) for start in starts}

    def minhash(self, shingles: set[str]) -> MinHash:
        """The sketch of a set."""
        minhash = self.empty.copy()
        minhash.update_batch(shingle.encode() for shingle in shingles)
        return minhash


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(number of bands, hashes in a band): as many hashes as still find a pair at the threshold."""
    for hashes in range(num_perm // 2, 1, -1):  # the library wants two bands at least
        count = num_perm // hashes
        if 1 - (1 - threshold**hashes) ** count >= _FOUND:
            return count, hashes
    return num_perm, 1
