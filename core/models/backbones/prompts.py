"""Prompts to vectors by a text tower that is open: what the families with words share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip.transformer import TextTransformer

from ovskit.core.records import Float

_BATCH = 32  # prompts; fixed, so that rounding does not depend on any option


class PromptTower:
    """An ``interface.TextTower`` around a ``tower`` in evaluation mode on ``device``; ``tokenizer`` makes tokens of a list of texts."""

    def __init__(self, tower: Any, tokenizer: Any, scale: float, weights_sha256: str, device: torch.device) -> None:
        self._tower, self._tokenizer, self.scale, self._device = tower, tokenizer, scale, device
        self.weights_sha256: str | None = weights_sha256
        self._causal = tower.attn_mask if _looks_back_alone(tower) else None

    def embed(self, prompts: Sequence[str]) -> Float:
        """(n, c) float32, of length 1; what exceeds the model's context is cut off by its tokenizer.

        Where no token sees those after it, what all prompts of a batch have as padding is left out, six sevenths of CLIP's 77 tokens: it
        changes the vectors by rounding alone (LANGUAGE A.5).
        """
        rows = []
        with torch.inference_mode():
            for start in range(0, len(prompts), _BATCH):
                tokens = self._tokenizer(list(prompts[start : start + _BATCH]))
                if self._causal is not None:
                    used = int((tokens != self._tower.pad_id).nonzero()[:, 1].max()) + 1
                    tokens, self._tower.attn_mask = tokens[:, :used], self._causal[:used, :used]
                found = self._tower(tokens.to(self._device))
                rows.append((found[0] if isinstance(found, tuple) else found).double().cpu().numpy())
        exact = np.concatenate(rows)
        return (exact / np.sqrt(np.square(exact).sum(axis=1, keepdims=True))).astype(np.float32)


def _looks_back_alone(tower: torch.nn.Module) -> bool:
    """Whether padding after a text's last token cannot change its vector: open_clip's own transformer with a causal mask, pooled at EOS."""
    return (
        isinstance(tower, TextTransformer)
        and tower.attn_mask is not None
        and not tower.use_pad_mask
        and tower.cls_emb is None
        and tower.pool_type in ("argmax", "eos")
    )
