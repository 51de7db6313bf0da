"""One image in, its masks out, in the shape of ``SamAutomaticMaskGenerator.generate``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.extract.pipeline import frame_size
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.hier.coverage_forest import grow_forest
from ovskit.core.masks import rle
from ovskit.core.records import FeatureMap, Image, MaskSet, UInt8
from ovskit.core.refine.job import RefineJob
from ovskit.core.refine.methods import REFINE
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.pipeline import refine_masks
from ovskit.core.runtime.errors import InputError

if TYPE_CHECKING:
    from ovskit.core.models.backbones.interface import Backbone
    from ovskit.core.refine.refiner import Refiner

_MAX_PIXELS = 178_956_970


def segment(
    image: str | Path | npt.NDArray[np.uint8], *, model: str = "builtin", size: int = 1024, device: str = "auto",
    refine: Sequence[str] = ("snap", "guided"),
) -> list[dict[str, Any]]:  # fmt: skip
    """The masks of one image: what ``ovs-extract | ovs-cluster | ovs-refine | ovs-hier`` finds in it, at their defaults.

    ``image`` is a path, or RGB pixels (height, width, 3) uint8. It is resized to ``size`` × ``size`` for the ``model``, whose weights are
    loaded once and kept; there is no local step. ``refine`` are the refiners, none if it is empty.

    Each mask is a dict: ``segmentation`` (height, width) bool, ``area`` in pixels, ``bbox`` [x, y, width, height], ``score`` in [0, 1],
    ``level`` (0 for a whole, 1 for its parts …) and ``parent``, the place in the list of the mask that it is a part of, or None. The order
    is that of a masks stream. Raises InputError for what is not an image, MissingInputError for a path that is not there, and what
    loading the model raises.
    """
    record, pixels = _opened(image)
    backbone = _backbone(model, device)
    height, width = frame_size((size, size), backbone.spec.stride, record.height, record.width)
    patch = backbone.extract(backbone.prepare(pixels, height, width)[None]).patch[0].half().cpu().numpy()
    options = SohesOptions(counts=backbone.spec.counts)
    masks = cluster_regions(FeatureMap(record, patch), options, frame=(height, width), crop_features=None)
    masks, _ = refine_masks(masks, pixels, [_refiner(name, device) for name in refine], RefineOptions())
    return _as_dicts(grow_forest(masks))


def _opened(image: str | Path | npt.NDArray[np.uint8]) -> tuple[Image, UInt8]:
    if isinstance(image, str | Path):
        return read_source(Source(1, Path(image).name, str(image)), max_pixels=_MAX_PIXELS)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an array of shape {image.shape} and dtype {image.dtype} is not an image: give (height, width, 3) uint8, RGB")
    return Image(1, "array", image.shape[1], image.shape[0]), np.ascontiguousarray(image)


@functools.cache
def _backbone(model: str, device: str) -> Backbone:
    from ovskit.core.models.registry import load_backbone
    from ovskit.core.runtime.device import choose_device

    return load_backbone(model, device=choose_device(device))


@functools.cache
def _refiner(name: str, device: str) -> Refiner:
    method = REFINE.get(name)
    refiner: Refiner = method.run(RefineJob(device), method.options())
    return refiner


def _as_dicts(masks: MaskSet) -> list[dict[str, Any]]:
    places = {mask.id: k for k, mask in enumerate(masks.masks)}
    return [
        {
            "segmentation": rle.decode(mask.rle).astype(bool),
            "area": mask.area,
            "bbox": list(mask.bbox),
            "score": mask.score,
            "level": mask.extra["level"],
            "parent": None if mask.parent_id is None else places[mask.parent_id],
        }
        for mask in masks.masks
    ]
