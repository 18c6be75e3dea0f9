"""A few texts as a tree of tokens: a reply that walks down from the root, token by token, becomes one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


class Trie:
    """The tree of token sequences. Node 0 is the root; a node is left by the tokens that go on to one of the texts."""

    def __init__(self, sequences: Iterable[Sequence[int]], vocabulary: int, device: str) -> None:
        self._next: list[dict[int, int]] = [{}]
        for sequence in sequences:
            node = 0
            for token in sequence:
                if token not in self._next[node]:
                    self._next[node][token] = len(self._next)
                    self._next.append({})
                node = self._next[node][token]
        allowed = torch.zeros(len(self._next), vocabulary, dtype=torch.bool)
        for node, following in enumerate(self._next):
            allowed[node, list(following)] = True
        self._allowed = allowed.to(device)

    def allowed(self, nodes: Sequence[int]) -> torch.Tensor:
        """Which tokens may follow [nodes, vocabulary]."""
        return self._allowed[torch.tensor(nodes, device=self._allowed.device)]

    def step(self, node: int, token: int) -> int:
        """The node that a token leads to."""
        return self._next[node][token]
