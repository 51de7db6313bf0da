"""``ovs-train segment``: a Mask2Former with an ancestor head, from masks that nobody drew (SOHES §3.2, self-instruction).

Every step draws views of photographs with their masks (``samples``: large-scale jitter, copy-paste) and minimises the
segmenter's losses (``models.segmenter.losses``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ovskit.core.models.registry import build_pyramid
from ovskit.core.models.segmenter.losses import segmenter_losses
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.train.recipes.mask_recipe import MaskRecipe, targets_of
from ovskit.core.train.recipes.segment_settings import SegmentSettings
from ovskit.core.train.views.samples import Batch


def new_segmenter(settings: SegmentSettings, *, weights: Path | None, pretrained: bool, seed: int) -> Segmenter:
    """The segmenter to begin with; raises what ``build_pyramid`` and ``SegmentSettings.config`` raise."""
    config = settings.config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pyramid = build_pyramid(
            settings.backbone,
            weights=weights,
            pretrained=pretrained,
            freeze=settings.freeze,
            checkpointing=settings.checkpointing,
            grouping=config.kinds > 0,
        )
        segmenter = Segmenter(replace(config, backbone_config=pyramid.config()), pyramid)
    segmenter.recompute(settings.checkpointing)
    return segmenter


class SegmentRecipe(MaskRecipe):
    """See the module; a ``Recipe``."""

    name = "segment"

    def losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """See ``segmenter_losses``."""
        return segmenter_losses(self._segmenter(batch.images), targets_of(batch), self._losses)
