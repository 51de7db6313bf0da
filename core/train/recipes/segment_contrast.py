"""What the built-in network learns from: which places share a segment in two views, where segments end, which views share an image.

All three are contrasts of a kind that needs no labels. Segments come from the cache (Felzenszwalb's at several
granularities [choice]); a place and the *mean* of its segment in the other view are a positive pair, as in superpixel-
and region-contrastive learning (van Gansbeke et al., MaskContrast, ICCV 2021; Hénaff et al., DetCon, ICCV 2021). How the
three are weighed, and every number here, is a choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SEGMENTS = 256  # labels are bytes


@dataclass(frozen=True, slots=True)
class Contrast:
    """Both losses of ``segment_contrast``: ``batch`` against segments of all images, ``image`` against those of the same image."""

    batch: torch.Tensor
    image: torch.Tensor


def segment_contrast(
    embedding: torch.Tensor, labels: torch.Tensor, *, anchors: int, negatives: int, temperature: float, generator: torch.Generator
) -> Contrast:
    """InfoNCE from ``anchors`` random places of each view to the means of the segments in the other view of the same pair.

    ``embedding`` (2n, d, h, w), unit vectors, the first views of n pairs before the second ones; ``labels`` (2n, h, w) int64 in
    0 … 255. ``negatives`` is how many random segments of other images the batch's loss takes. Both losses in nats, means over the
    places whose segment the other view shows; 0 where there is none. ``generator`` belongs to the CPU, so that devices
    draw alike.
    """
    views, width = embedding.shape[:2]
    pairs = views // 2
    device = embedding.device
    places = embedding.flatten(2).mT
    flat = labels.flatten(1)
    sums = torch.zeros(views, SEGMENTS, width, device=device).scatter_add_(1, flat[..., None].expand(-1, -1, width), places)
    counts = torch.zeros(views, SEGMENTS, device=device).scatter_add_(1, flat, torch.ones_like(flat, dtype=sums.dtype))
    other = torch.arange(views, device=device).roll(pairs)
    means, there = F.normalize(sums, dim=2)[other], counts[other] > 0

    picked = torch.randint(0, flat.shape[1], (views, anchors), generator=generator).to(device)
    own = flat.gather(1, picked)
    anchor = places.gather(1, picked[..., None].expand(-1, -1, width))
    useful = there.gather(1, own)
    within = (anchor @ means.mT / temperature).masked_fill(~there[:, None], -torch.inf)
    positive = within.gather(2, own[..., None])[..., 0].masked_fill(~useful, 0)
    # A place whose view pairs with nothing has no finite logit at all; its row is left out below.
    image_norm = torch.logsumexp(within.masked_fill(~useful[..., None], 0), dim=2)

    found = there.nonzero()
    drawn = torch.randperm(len(found), generator=generator)[:negatives].to(device)
    view, segment = found[drawn].unbind(1)
    across = (anchor.reshape(-1, width) @ means[view, segment].mT / temperature).view(views, anchors, -1)
    same = (view % pairs)[None, None] == (torch.arange(views, device=device) % pairs)[:, None, None]
    batch_norm = torch.logaddexp(torch.logsumexp(across.masked_fill(same, -1e4), dim=2), image_norm)
    share = 1 / useful.sum().clamp_min(1)
    return Contrast(
        batch=((batch_norm - positive) * useful).sum() * share,
        image=((image_norm - positive) * useful).sum() * share,
    )


def boundary_loss(right: torch.Tensor, below: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the boundaries at all granularities: the sum of both directions' means.

    ``right`` and ``below`` (b, levels, h, w) are logits (``Grouping``), ``labels`` (b, levels, h, w) int64.
    """
    across = (labels[..., :, 1:] != labels[..., :, :-1]).float()
    down = (labels[..., 1:, :] != labels[..., :-1, :]).float()
    return F.binary_cross_entropy_with_logits(right[..., :, :-1].float(), across) + F.binary_cross_entropy_with_logits(
        below[..., :-1, :].float(), down
    )


def image_contrast(vectors: torch.Tensor, queue: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """InfoNCE between the two views of an image, against all other images of the batch and a queue of earlier ones.

    ``vectors`` (2n, d) and ``queue`` (m, d) are unit vectors, first views first; after MoCo (He et al., CVPR 2020).
    """
    first, second = vectors.chunk(2)
    target = torch.arange(len(first), device=vectors.device)
    losses = []
    for here, there in ((first, second), (second, first)):
        logits = torch.cat([here @ there.mT, here @ queue.mT], dim=1) / temperature
        losses.append(F.cross_entropy(logits, target))
    return (losses[0] + losses[1]) / 2
