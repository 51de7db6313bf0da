"""The ancestor head: which of two queries' masks contains the other as its part (SOHES §3.2, Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AncestorHead(nn.Module):
    """P̂ = sigmoid((Q W₁)(Q W₂)ᵀ / √C), SOHES Eq. 1, of queries Q (q, C) and two learned C × C matrices.

    Entry [i, j] is the probability that mask i is an ancestor of mask j. The two matrices make it asymmetric: W₁ says what a
    query is as an ancestor, W₂ what it is as a descendant.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ancestor = nn.Parameter(torch.empty(width, width))
        self.descendant = nn.Parameter(torch.empty(width, width))
        # Normalised queries then give logits of about unit variance [choice].
        nn.init.xavier_uniform_(self.ancestor)
        nn.init.xavier_uniform_(self.descendant)

    def forward(self, queries: Tensor) -> Tensor:
        """Logits (b, q, q) of queries (b, q, C)."""
        scale = self.ancestor.shape[0] ** -0.5
        return (queries @ self.ancestor * scale) @ (queries @ self.descendant).mT
