"""What the segmenter learns from: Mask2Former's class, mask and dice losses at random points, and the ancestors' cross-entropy.

Every prediction of the decoder is matched with the targets on its own and learns from its own losses (Mask2Former's
auxiliary losses); the ancestor head has the last layer's matches alone (SOHES §3.2). All arithmetic is float32, also under
autocast. Random points come from torch's global generator on the predictions' device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import dice_loss, sample_point, sigmoid_cross_entropy_loss

from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.network import ENTITY, NO_OBJECT, Predictions

Balance = Literal["none", "weight"]
_WORST = torch.finfo(torch.float32).max
_NONE = np.zeros(0, np.int64)
_HEAVIEST = 100.0  # negative pairs of ancestors that a positive one counts for at most


class Target(NamedTuple):
    """What one image shows: ``masks`` (n, h, w), bool or uint8 in 0 … 1, at any resolution; ``ancestors`` (n, n) bool, where
    [i, j] says that mask i is an ancestor of mask j. n may be 0."""

    masks: Tensor
    ancestors: Tensor


class Match(NamedTuple):
    """Which queries stand for which targets of an image: two int64 tensors of one length, min(q, n), on the CPU."""

    queries: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Weights and points.

    ``classes``, ``masks`` and ``dice`` weigh both the losses and the matcher's costs, ``no_object`` weighs the queries that
    no target was matched with (2, 5, 5 and 0.1: Mask2Former). ``ancestors`` is 1 [choice]. ``ancestor_balance`` "weight" makes
    the positive pairs of a batch count as much as its negative ones, by a factor of 1/100 … 100 [choice; the paper does not
    tell]; "none" is the plain mean. ``points``, ``oversampling`` and ``importance``: see ``SegmenterConfig``.

    Raises ValueError for another ``ancestor_balance``.
    """

    points: int = 12544
    oversampling: float = 3.0
    importance: float = 0.75
    classes: float = 2.0
    masks: float = 5.0
    dice: float = 5.0
    no_object: float = 0.1
    ancestors: float = 1.0
    ancestor_balance: Balance = "none"

    def __post_init__(self) -> None:
        if self.ancestor_balance not in ("none", "weight"):
            raise ValueError(f"there is no ancestor_balance {self.ancestor_balance!r}; none, weight")

    @classmethod
    def of(cls, config: SegmenterConfig, *, ancestors: float = 1.0, ancestor_balance: Balance = "none") -> LossOptions:
        """Mask2Former's weights with a segmenter's own points."""
        return cls(config.points, config.oversampling, config.importance, ancestors=ancestors, ancestor_balance=ancestor_balance)


def segmenter_losses(
    predictions: Predictions, targets: Sequence[Target], options: LossOptions, *, num_masks: float | None = None
) -> dict[str, Tensor]:
    """The losses of a batch as float32 scalars, always under the same names. See ``matched_losses``."""
    return matched_losses(predictions, targets, options, num_masks=num_masks)[0]


def matched_losses(
    predictions: Predictions, targets: Sequence[Target], options: LossOptions, *, num_masks: float | None = None
) -> tuple[dict[str, Tensor], list[Match]]:
    """The losses of a batch, and the last layer's matches, image by image, that they were computed with.

    ``loss`` is to be minimised: over all predictions, the weighted sum of their class, mask and dice losses, plus the ancestors'.
    The others are detached, to be logged: ``class`` (cross-entropy over all queries), ``mask`` (binary cross-entropy) and
    ``dice`` of the last layer and ``ancestor``, none of them weighted, and the numbers of ordered pairs behind the latter,
    ``ancestor positives`` and ``ancestor negatives``.

    Mask and dice losses are sums over the matched masks divided by ``num_masks``, by default the number of this batch's
    targets and at least 1. Mask2Former takes the mean over all processes; here it is the batch's own, so that four processes give what
    four accumulated batches give (``train.recipe``); a caller that knows better says so. An image without targets teaches all its
    queries no-object. Whatever the targets, every logit has a gradient, if it is zero.

    Raises ValueError unless there are as many targets as images, and ancestors as masks.
    """
    _check(predictions, targets)
    device = predictions.ancestors.device
    count = float(max(1, sum(len(target.masks) for target in targets))) if num_masks is None else num_masks
    total = torch.zeros((), device=device)
    named: dict[str, Tensor] = {}
    matches: list[Match] = []
    placed: list[Match] = []
    with torch.autocast(device.type, enabled=False):
        for classes, masks in zip(predictions.classes, predictions.masks, strict=True):
            matches = match(classes, masks, targets, options)
            placed = _placed(matches, device)
            named = {"class": _class_loss(classes, placed, options), **_mask_losses(masks, targets, placed, count, options)}
            total = total + options.classes * named["class"] + options.masks * named["mask"] + options.dice * named["dice"]
        named |= _ancestor_loss(predictions.ancestors, targets, placed, options)
        total = total + options.ancestors * named["ancestor"]
    return {"loss": total} | {name: value.detach() for name, value in named.items()}, matches


def match(classes: Tensor, masks: Tensor, targets: Sequence[Target], options: LossOptions) -> list[Match]:
    """The cheapest assignment of targets to queries for each image, by Mask2Former's costs at random points, the same for all masks.

    ``classes`` (b, q, 2) and ``masks`` (b, q, h, w) are logits. Image by image, so that only one image's masks are float32 at a time.
    The numbers are transformers' matcher's, but the places are worked out once, not for each mask, and both costs of the
    masks come from one product: half the time. All images' costs are read together, since reading waits for the device.
    """
    costs = []
    with torch.no_grad():
        for k, target in enumerate(targets):
            if not len(target.masks):
                continue
            places = torch.rand(1, options.points, 2, device=masks.device)
            logits = sample_point(masks[k : k + 1].float(), places, align_corners=False)[0]
            labels = sample_point(target.masks[None].float(), places, align_corners=False)[0]
            # A cost that is not a number goes to whoever is left, instead of ending the run here.
            costs.append(torch.nan_to_num(_costs(classes[k].float(), logits, labels, options), nan=_WORST, posinf=_WORST, neginf=_WORST))
        read = torch.cat([one.flatten() for one in costs]).cpu().split([one.numel() for one in costs]) if costs else ()
    found, each = [], iter(read)
    for target in targets:
        columns = len(target.masks)
        queries, chosen = linear_sum_assignment(next(each).view(-1, columns).numpy()) if columns else (_NONE, _NONE)
        found.append(Match(torch.from_numpy(queries), torch.from_numpy(chosen)))
    return found


def _placed(matches: Sequence[Match], device: torch.device) -> list[Match]:
    """The matches on the device, by one copy that does not make the CPU wait, as every index from the CPU would."""
    if device.type == "cpu":
        return list(matches)
    flat = torch.cat([one for found in matches for one in found])
    flat = flat.pin_memory() if device.type == "cuda" else flat
    parts = flat.to(device, non_blocking=True).split([len(one) for found in matches for one in found])
    return [Match(queries, targets) for queries, targets in zip(parts[::2], parts[1::2], strict=True)]


def _costs(classes: Tensor, logits: Tensor, labels: Tensor, options: LossOptions) -> Tensor:
    """What it costs each query (q) to stand for each target (n), (q, n), from values (q, points) and (n, points)."""
    queries, points = logits.shape
    probability = logits.sigmoid()
    products = torch.cat([logits, probability]) @ labels.mT
    # Σ y·softplus(−x) + (1 − y)·softplus(x) = Σ softplus(x) − x·y
    entropy = (F.softplus(logits).sum(1, keepdim=True) - products[:queries]) / points
    dice = 1 - (2 * products[queries:] + 1) / (probability.sum(1, keepdim=True) + labels.sum(1) + 1)
    return options.masks * entropy - options.classes * classes.softmax(1)[:, ENTITY, None] + options.dice * dice


def _check(predictions: Predictions, targets: Sequence[Target]) -> None:
    if len(targets) != len(predictions.ancestors):
        raise ValueError(f"{len(targets)} targets for {len(predictions.ancestors)} images")
    for target in targets:
        n = len(target.masks)
        if target.masks.ndim != 3 or target.ancestors.shape != (n, n):
            raise ValueError(
                f"masks {tuple(target.masks.shape)} and ancestors {tuple(target.ancestors.shape)}; expected (n, h, w) and (n, n)"
            )


def _class_loss(classes: Tensor, matches: Sequence[Match], options: LossOptions) -> Tensor:
    """Cross-entropy, the mean over all queries of the batch, in which no-object counts ``no_object``."""
    labels = torch.full(classes.shape[:2], NO_OBJECT, dtype=torch.int64, device=classes.device)
    for row, found in zip(labels, matches, strict=True):
        row.index_fill_(0, found.queries, ENTITY)
    weight = torch.ones(2, device=classes.device)
    weight[NO_OBJECT].fill_(options.no_object)
    return F.cross_entropy(classes.float().flatten(0, 1), labels.flatten(), weight)


def _mask_losses(
    masks: Tensor, targets: Sequence[Target], matches: Sequence[Match], count: float, options: LossOptions
) -> dict[str, Tensor]:
    """Binary cross-entropy and dice of the matched masks at points drawn where the predictions are uncertain."""
    if not any(len(found.queries) for found in matches):
        # Zero, but with a gradient: distributed training waits for every parameter's.
        nothing = masks[:0].float().sum()
        return {"mask": nothing, "dice": nothing}
    images = torch.cat([torch.full_like(found.queries, k) for k, found in enumerate(matches)])
    predicted = masks[images, torch.cat([found.queries for found in matches])].float()[:, None]
    with torch.no_grad():
        places = _draw_points(predicted, options)
        # Targets may differ in resolution, and all of a batch in float32 would not fit.
        parts = places.split([len(found.targets) for found in matches])
        labels = torch.cat(
            [
                sample_point(target.masks[found.targets].float()[:, None], part, align_corners=False)[:, 0]
                for target, found, part in zip(targets, matches, parts, strict=True)
                if len(part)
            ]
        )
    logits = sample_point(predicted, places, align_corners=False)[:, 0]
    # Both divide by what they are given, whatever its type.
    return {"mask": sigmoid_cross_entropy_loss(logits, labels, count), "dice": dice_loss(logits, labels, count)}  # type: ignore[arg-type]


def _draw_points(masks: Tensor, options: LossOptions) -> Tensor:
    """Places (m, points, 2), x and y in 0 … 1, for mask logits (m, 1, h, w): the least certain of many, then some wherever they are.

    The places of transformers' ``sample_points_using_uncertainty``, but in no order, which it takes two thirds of its time for.
    """
    many, certain = int(options.points * options.oversampling), int(options.importance * options.points)
    places = torch.rand(len(masks), many, 2, device=masks.device)
    certainty = sample_point(masks, places, align_corners=False)[:, 0].abs()
    least = torch.topk(certainty, certain, dim=1, largest=False, sorted=False).indices
    least = least + many * torch.arange(len(masks), device=masks.device)[:, None]
    chosen = places.flatten(0, 1).index_select(0, least.flatten()).view(len(masks), certain, 2)
    anywhere = torch.rand(len(masks), options.points - certain, 2, device=masks.device)
    return torch.cat([chosen, anywhere], dim=1)


def _ancestor_loss(logits: Tensor, targets: Sequence[Target], matches: Sequence[Match], options: LossOptions) -> dict[str, Tensor]:
    """Binary cross-entropy over the ordered pairs of distinct matched queries of an image, the mean over the batch's pairs."""
    given, wanted = [], []
    for k, (target, found) in enumerate(zip(targets, matches, strict=True)):
        first, second = _pairs(len(found.queries), found.queries.device)
        given.append(logits[k, found.queries[first], found.queries[second]].float())
        wanted.append(target.ancestors[found.targets[first], found.targets[second]].float())
    logit, label = torch.cat(given), torch.cat(wanted)
    positives = label.sum()
    negatives = len(label) - positives
    weight = torch.ones_like(label)
    if options.ancestor_balance == "weight":
        weight = torch.where(label > 0, (negatives / positives.clamp_min(1)).clamp(1 / _HEAVIEST, _HEAVIEST), weight)
    each = F.binary_cross_entropy_with_logits(logit, label, weight, reduction="sum")
    # The weights' sum, so that balancing does not change the scale of the loss; 1 where there is no pair.
    return {
        "ancestor": each / weight.sum().clamp_min(1),
        "ancestor positives": positives,
        "ancestor negatives": negatives,
    }


def _pairs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All ordered pairs of distinct numbers below ``count``, row by row; by arithmetic, as looking for them would wait for the device."""
    others = max(1, count - 1)
    each = torch.arange(count * (count - 1), device=device)
    first, second = each // others, each % others
    return first, second + (second >= first)
