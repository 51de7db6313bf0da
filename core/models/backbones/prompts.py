"""Prompts to vectors by a text tower that is open: what the families with words share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ovskit.core.records import Float

_BATCH = 32  # prompts; fixed, so that rounding does not depend on any option


class PromptTower:
    """An ``interface.TextTower`` around a ``tower`` in evaluation mode on ``device``; ``tokenizer`` makes tokens of a list of texts."""

    def __init__(self, tower: Any, tokenizer: Any, scale: float, weights_sha256: str, device: torch.device) -> None:
        self._tower, self._tokenizer, self.scale, self._device = tower, tokenizer, scale, device
        self.weights_sha256: str | None = weights_sha256

    def embed(self, prompts: Sequence[str]) -> Float:
        """(n, c) float32, of length 1; what exceeds the model's context is cut off by its tokenizer."""
        rows = []
        with torch.inference_mode():
            for start in range(0, len(prompts), _BATCH):
                found = self._tower(self._tokenizer(list(prompts[start : start + _BATCH])).to(self._device))
                rows.append((found[0] if isinstance(found, tuple) else found).double().cpu().numpy())
        exact = np.concatenate(rows)
        return (exact / np.sqrt(np.square(exact).sum(axis=1, keepdims=True))).astype(np.float32)
