"""What patches attend to where patches are named without training: the equations, as functions of tensors.

Two kinds. The last block's own queries and keys in another pairing, head by head: values come in and mixed values go out, and the attention
matrix is never written out. And the similarities of another network, one matrix for all heads: weights (b, n, n) come out, which ``mix``
applies to the values of all heads side by side.

Patches alone ask. CLS and registers stay among the keys of the first kind, as in the authors' codes of all three; the second kind knows
patches only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.dense import Attended


def by_queries(block: Attended, prefix: int) -> torch.Tensor:
    """softmax(q·qᵀ/√d)·v of each head: mixed values (b, heads, n, d) of the patches, which come after ``prefix`` other tokens.

    ClearCLIP (Lan et al., ECCV 2024); the first half of SCLIP's.
    """
    return F.scaled_dot_product_attention(block.query[:, :, prefix:], block.query, block.value)


def by_keys(block: Attended, prefix: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """softmax(k·kᵀ/√d + ω)·v of each head: mixed values (b, heads, n, d) of the patches, where ω is ``bias`` (n, prefix + n) or 0.

    NACLIP (Hajimiri et al., WACV 2025) with a bias; the second half of SCLIP's without.
    """
    return F.scaled_dot_product_attention(block.key[:, :, prefix:], block.key, block.value, attn_mask=bias)


def by_queries_and_keys(block: Attended, prefix: int) -> torch.Tensor:
    """(softmax(q·qᵀ/√d) + softmax(k·kᵀ/√d))·v of each head: mixed values (b, heads, n, d) of the patches; weights sum to 2.

    SCLIP's correlative self-attention (Wang et al., ECCV 2024).
    """
    return by_queries(block, prefix) + by_keys(block, prefix)


def neighbourhood(rows: int, columns: int, sigma: float, prefix: int) -> torch.Tensor:
    """NACLIP's Gaussian window, (n, prefix + n) float32 with n = rows·columns: ω_ij = exp(−‖p_i − p_j‖²/2σ²), positions in patches.

    It is added to the scaled products as it is: at most 1, at the patch itself, and 0 far away and for the ``prefix`` tokens, which have no
    position [code].
    """
    sides = (torch.arange(side, dtype=torch.float32) for side in (rows, columns))
    down, across = (torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2)) for at in sides)
    return F.pad(torch.kron(down, across), (prefix, 0))


def proxy_weights(features: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """ProxyCLIP's attention (Lan et al., ECCV 2024) from unit rows (b, n, c): (b, n, n) float32, rows sum to 1.

    S = F·Fᵀ, S' = γ·(S − β·mean S); A = softmax of the rows of S' without what is below 0. The diagonal is kept whatever its value
    [choice]: in an image of one colour S is 1 everywhere, below β·mean S, and a row without any entry would be NaN.
    """
    weights = _similarity(features)
    floor = weights.mean(dim=(1, 2), keepdim=True).mul_(beta)
    below = weights.sub_(floor) < 0
    below.diagonal(dim1=1, dim2=2).fill_(False)
    return weights.mul_(gamma).masked_fill_(below, -torch.inf).softmax(dim=-1)


def correlation_weights(features: torch.Tensor, regions: torch.Tensor, scale: float) -> torch.Tensor:
    """CorrCLIP's attention (Zhang et al., ICCV 2025) from unit rows (b, n, c) and regions (b, n), -1 for none: (b, n, n) float32.

    A = softmax of scale·S over the pairs that are allowed, S = D·Dᵀ: both in one region; or, where one of them is in none, S above its mean
    over all pairs. The diagonal is always allowed [choice; the published rule can leave a patch of no region with nothing]. Rows sum to 1.
    """
    weights = _similarity(features)
    outside = regions < 0
    allowed = regions[:, :, None] == regions[:, None, :]
    if bool(outside.any()):
        unbound = outside[:, :, None] | outside[:, None, :]
        allowed = torch.where(unbound, weights > weights.mean(dim=(1, 2), keepdim=True), allowed)
        allowed.diagonal(dim1=1, dim2=2).fill_(True)
    return weights.mul_(scale).masked_fill_(~allowed, -torch.inf).softmax(dim=-1)


def mix(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weights (b, n, n) applied to values (b, n, c), in the values' type."""
    return weights.to(values.dtype) @ values


def _similarity(features: torch.Tensor) -> torch.Tensor:
    return (features @ features.transpose(1, 2)).float()
