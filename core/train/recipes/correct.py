"""``ovs-train correct``: a segmenter that learns from its own average (SOHES §3.3, self-correction).

A teacher, the moving average of the student, looks at weak views of photographs; what it is sure enough of becomes the targets of
strong views of the same photographs, carried through the geometry between the two. The student minimises, with equal weight,
the segmenter's losses on these and on views with their initial masks, as in ``segment``:

    L = L_seg(strong(I₁), Y_initial) + L_seg(strong(I₂), Y_teacher)

How sure is enough goes by size (Eq. 3): small entities, which a teacher sees less surely, need less. Left open by the paper, and
choices: the teacher's masks are cut at a logit of 0 on its grid of one point for 4 × 4 pixels and carried by the nearest point; its
ancestors are those of at least 0.5, without cycles; a mask counts as a target if four points of it are in the student's view.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.segmenter.forest import acyclic
from ovskit.core.models.segmenter.losses import Target, segmenter_losses
from ovskit.core.models.segmenter.network import STRIDE, Predictions, Segmenter
from ovskit.core.runtime.errors import UsageError
from ovskit.core.train.data.shuffle import place_at
from ovskit.core.train.data.target_index import TargetIndex
from ovskit.core.train.recipes.mask_recipe import MaskRecipe, targets_of
from ovskit.core.train.recipes.segment_settings import SegmentSettings
from ovskit.core.train.views.colour_augment import ColourOptions
from ovskit.core.train.views.geometry import View, carry
from ovskit.core.train.views.samples import Batch, Pairs, SampleOptions, draw_pairs

_SIZES = (32 * 32, 96 * 96)  # COCO's: a small mask has less than the first, a medium one less than the second, in the photograph's pixels
_MIN_POINTS = 4
_ANOTHER_ORDER = 0x5EED  # the photographs that the teacher labels come in an order of their own


@dataclass(frozen=True, slots=True)
class CorrectSettings:
    """What the teacher does, beside the settings of ``segment``."""

    # The teacher's moving average [paper].
    momentum: float = 0.9995

    # Which of its masks are targets: "dynamic" (Eq. 3) or "fixed", at ``threshold_large`` whatever the size [paper: 0.7, 0.3, 200].
    threshold: str = "dynamic"
    threshold_large: float = 0.7
    threshold_small: float = 0.3
    gamma: float = 200.0

    # Of queries that begin at places several lie in one entity: their scores are pooled and the best is kept where masks overlap by
    # an IoU above this, as ovs-predict has it [choice].
    nms: float = 0.85

    # The weight of its half of the loss [paper: equal weights].
    teacher: float = 1.0

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        if self.threshold not in ("dynamic", "fixed"):
            raise UsageError(f"threshold {self.threshold}: choose dynamic or fixed")
        for name in ("momentum", "threshold_large", "threshold_small", "nms"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name):g}: give a number from 0 to 1")
        for name in ("gamma", "teacher"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name):g}: give at least 0")

    def of_share(self, share: torch.Tensor) -> torch.Tensor:
        """The score that a mask of this share of the image must be above: θ(a) = (1 − (1 − a)^γ)(θ_large − θ_small) + θ_small (Eq. 3)."""
        if self.threshold == "fixed":
            return torch.full_like(share, self.threshold_large)
        return (1 - (1 - share) ** self.gamma) * (self.threshold_large - self.threshold_small) + self.threshold_small


class Both(NamedTuple):
    """A step's two batches: views with their initial masks, and weak and strong views without."""

    initial: Batch
    pairs: Pairs


class Labels(NamedTuple):
    """What the teacher says of a batch: targets in the strong views, and how many small, medium and large masks it is sure of:
    (3,) float32."""

    targets: list[Target]
    sizes: torch.Tensor


class CorrectRecipe(MaskRecipe):
    """See the module; a ``Recipe``.

    ``segmenter`` is what ``segment`` made, trained with ``settings``; all photographs are shown to the teacher. What is exported,
    and evaluated, is the student [choice: the paper does not say], with the teacher in the checkpoint.
    """

    name = "correct"

    def __init__(
        self,
        index: TargetIndex,
        photographs: Sequence[Source],
        segmenter: Segmenter,
        settings: SegmentSettings,
        correct: CorrectSettings,
        folder: Path,
        **others: Any,
    ) -> None:
        super().__init__(index, photographs, segmenter, settings, folder, **others)
        self._correct = correct
        self._teacher = copy.deepcopy(segmenter).requires_grad_(False)
        self._several = segmenter.config.kinds > 0
        self.modules = nn.ModuleDict({"student": segmenter, "teacher": self._teacher})
        # As strong as the paper's, and nothing pasted: the teacher could not know of it.
        self._unlabelled = SampleOptions(settings.side, STRIDE, self._samples.scales, paste=None, colours=ColourOptions())

    def batch(self, step: int, rank: int, world: int) -> Both:
        """Both halves, of ``batch`` photographs each."""
        size = self._settings.batch
        first = (step * world + rank) * size
        places = [place_at(k, len(self._photographs), self._seed + _ANOTHER_ORDER) for k in range(first, first + size)]
        rng = np.random.default_rng((self._seed, step, rank, size))  # the samples of the initial half have numbers below ``size``
        return Both(super().batch(step, rank, world), draw_pairs(self._photographs, places, rng, self._unlabelled, self._failures))

    def losses(self, batch: Both, step: int) -> dict[str, torch.Tensor]:
        """The initial half's under the names of ``segmenter_losses``, the teacher's in one, and the number of its masks an image."""
        self._teacher.eval()
        with torch.no_grad():
            seen = self._teacher(batch.pairs.weak)
            labels = teacher_labels(seen, batch.pairs.weak_views, batch.pairs.strong_views, self._correct, several=self._several)
        count = len(batch.initial.images)
        said = self._segmenter(torch.cat([batch.initial.images, batch.pairs.strong]))
        initial = segmenter_losses(_part(said, slice(None, count)), targets_of(batch.initial), self._losses)
        taught = segmenter_losses(_part(said, slice(count, None)), labels.targets, self._losses)
        found = {**initial, "loss": initial["loss"] + self._correct.teacher * taught["loss"], "initial": initial["loss"].detach()}
        found["teacher"] = taught["loss"].detach()
        for name, number in zip(("small", "medium", "large"), labels.sizes / len(labels.targets), strict=True):
            found[f"teacher {name}"] = number
        return found

    def after_step(self, step: int) -> None:
        """The teacher takes in the student's new weights; statistics of normalisation are the student's own."""
        super().after_step(step)
        with torch.no_grad():
            torch._foreach_lerp_(list(self._teacher.parameters()), list(self._segmenter.parameters()), 1 - self._correct.momentum)
            for mine, theirs in zip(self._teacher.buffers(), self._segmenter.buffers(), strict=True):
                mine.copy_(theirs)

    def metadata(self) -> dict[str, Any]:
        """All settings, the seed, and what masks and first weights are."""
        return super().metadata() | {"correct": asdict(self._correct)}


def teacher_labels(
    seen: Predictions, weak: Sequence[View], strong: Sequence[View], settings: CorrectSettings, *, several: bool = False
) -> Labels:
    """What the teacher saw in weak views (b of them) as targets in strong views of the same photographs.

    A mask is one if its score is above the threshold for its share of the weak view, and at least four of its points are in the strong
    view. ``several`` says that more than one query may stand for an entity: see ``CorrectSettings.nms``. Sizes are in the photograph's own
    pixels.
    """
    scores = seen.scores()
    targets = []
    sizes = torch.zeros(3, device=scores.device)
    for k in range(len(scores)):
        masks = seen.masks[-1][k] > 0
        share = masks.flatten(1).float().mean(dim=1)
        sure = scores[k]
        if several:
            sure = one_of_several(masks, sure, settings.nms)
        chosen = torch.nonzero(sure > settings.of_share(share))[:, 0]
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


def _part(said: Predictions, which: slice) -> Predictions:
    """Some images of a batch."""
    return Predictions([one[which] for one in said.classes], [one[which] for one in said.masks], said.ancestors[which])
