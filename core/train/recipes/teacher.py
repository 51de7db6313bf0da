"""What a teacher says of weak views, as targets of strong views of the same photographs (SOHES §3.3).

How sure it must be goes by size (Eq. 3): small entities, which a teacher sees less surely, need less. Left open by the paper, and
choices: the teacher's masks are cut at a logit of 0 on its grid of one point for 4 × 4 pixels and carried by the nearest point; its
ancestors are those of at least 0.5, without cycles; a mask counts as a target if four points of it are in the student's view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ovskit.core.models.segmenter.forest import acyclic
from ovskit.core.models.segmenter.losses import Target
from ovskit.core.models.segmenter.network import Predictions
from ovskit.core.train.views.geometry import View, carry

_SIZES = (32 * 32, 96 * 96)  # COCO's: a small mask has less than the first, a medium one less than the second, in the photograph's pixels
_MIN_POINTS = 4


class Labels(NamedTuple):
    """What the teacher says of a batch: targets in the strong views, and how many small, medium and large masks it is sure of:
    (3,) float32."""

    targets: list[Target]
    sizes: torch.Tensor


def teacher_labels(
    seen: Predictions,
    weak: Sequence[View],
    strong: Sequence[View],
    threshold: Callable[[torch.Tensor], torch.Tensor],
    nms: float | None = None,
) -> Labels:
    """What the teacher saw in weak views (b of them) as targets in strong views of the same photographs.

    A mask is one if its score is above the ``threshold`` for its share (n,) of the weak view, and at least four of its points are in the
    strong view. Where more than one query may stand for an entity, ``nms`` is the IoU for ``one_of_several``. Sizes are in the photograph's
    own pixels.
    """
    scores = seen.scores()
    targets = []
    sizes = torch.zeros(3, device=scores.device)
    for k in range(len(scores)):
        masks = seen.masks[-1][k] > 0
        share = masks.flatten(1).float().mean(dim=1)
        sure = scores[k]
        if nms is not None:
            sure = one_of_several(masks, sure, nms)
        chosen = torch.nonzero(sure > threshold(share))[:, 0]
        pixels = share[chosen] * (weak[k].height * weak[k].width)
        classes = (pixels >= _SIZES[0]).long() + (pixels >= _SIZES[1]).long()
        sizes += torch.bincount(classes, minlength=3).to(sizes)
        carried = carry(masks[chosen].to(torch.uint8), weak[k], strong[k], masks.shape[-1])
        there = carried.flatten(1).sum(dim=1) >= _MIN_POINTS
        chosen, carried = chosen[there], carried[there]
        chance = seen.ancestors[k][chosen][:, chosen].float().sigmoid().cpu().double().numpy()
        edges = acyclic(chance, share[chosen].cpu().double().numpy())
        targets.append(Target(carried, torch.from_numpy(edges).to(carried.device)))
    return Labels(targets, sizes)


def one_of_several(masks: torch.Tensor, scores: torch.Tensor, nms: float) -> torch.Tensor:
    """Pooled scores (q,) of masks (q, h, w) bool, 0 for those that overlap a better one by an IoU above ``nms``, and for empty ones.

    A mask's pooled score is 1 − Π (1 − score) over it and all that overlap it so.
    """
    points = masks.flatten(1).float()
    area = points.sum(dim=1)
    common = points @ points.mT
    near = common > nms * (area[:, None] + area - common)
    near.fill_diagonal_(True)
    together = -torch.expm1(near.float() @ torch.log1p(-scores.clamp(0, 1 - 1e-6)))
    together = torch.where(area > 0, together, 0.0)
    order = torch.argsort(together, descending=True, stable=True).cpu().numpy()
    beside, kept = near.cpu().numpy(), np.ones(len(order), np.bool_)
    for k in order:
        if kept[k]:
            kept[beside[k]] = False
            kept[k] = True
    return together * torch.from_numpy(kept).to(together)
