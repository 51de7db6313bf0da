"""Opening a trained segmenter with the backbone that it was trained with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ovskit.core.models.registry import build_pyramid
from ovskit.core.models.segmenter.checkpoint import LoadedSegmenter, load_segmenter
from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.network import MULTIPLE

_SIZE = 512  # for a segmenter whose training did not record a valid size
_LARGEST = 16_384


def open_segmenter(folder: Path) -> LoadedSegmenter:
    """The segmenter that ``ovs-train segment`` or ``correct`` left in ``folder``; nothing is downloaded.

    Raises what ``load_segmenter`` raises.
    """
    return load_segmenter(folder, build_backbone)


def input_size(loaded: LoadedSegmenter) -> int:
    """The side in pixels of what the segmenter was trained on."""
    size = loaded.training.get("size")
    return size if type(size) is int and MULTIPLE <= size <= _LARGEST else _SIZE


def build_backbone(config: SegmenterConfig) -> nn.Module:
    """The pyramid that a segmenter of this configuration stands on, with random weights; raises what ``build_pyramid`` raises."""
    return build_pyramid(
        config.backbone, weights=None, pretrained=False, freeze=config.freeze, config=config.backbone_config, grouping=config.kinds > 0
    )
