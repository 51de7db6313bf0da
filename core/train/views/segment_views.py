"""Two overlapping views of a photograph with its segments, and batches of them.

A view is a random rectangle, resized to a square, perhaps mirrored, blurred and its colours changed. Its segments come along,
sampled at the network's stride. What a batch holds is a function of the seed and its step alone, so that a run stopped
and resumed, or spread over several processes, sees what one run in one process would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ovskit.core.models.builtin.network import STRIDE, normalise
from ovskit.core.records import Float, UInt8
from ovskit.core.train.data.pool_cache import LABEL_STRIDE, PoolCache

Float32 = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, slots=True)
class SegmentViewOptions:
    """How views are made; all of it a choice.

    ``crop`` is the side of a view in pixels. A rectangle's side is ``smallest`` to ``largest`` of the photograph's shorter
    side (cut to what there is), its aspect up to e^``aspect``; rectangles that overlap by less than ``overlap`` of the smaller
    are drawn again. ``colour`` scales all changes of colour: brightness, contrast and saturation by up to 40 %, a cast of
    up to 10 %, and no colour at all in 10 % of the views, each at 1. ``blur`` is the share of blurred views.
    """

    crop: int = 128
    smallest: float = 0.45
    largest: float = 1.2
    aspect: float = 0.2
    overlap: float = 0.3
    colour: float = 1.0
    blur: float = 0.3


class SegmentViews(NamedTuple):
    """A batch of n pairs: ``images`` (2n, 3, S, S) float32, normalised, first views before second ones; ``labels``
    (2n, levels, S/4, S/4) int64, equal in both views of a pair where the segment is the same."""

    images: torch.Tensor
    labels: torch.Tensor


def draw_segment_views(cache: PoolCache, places: Sequence[int], rng: np.random.Generator, options: SegmentViewOptions) -> SegmentViews:
    """One pair of views for each photograph of ``places``; everything random comes from ``rng``, in order."""
    images: list[list[UInt8]] = [[], []]
    labels: list[list[UInt8]] = [[], []]
    for place in places:
        image, segments = cache[place]
        for k, box in enumerate(_two_boxes(image.shape[0], image.shape[1], rng, options)):
            view, label = _view(image, segments, box, bool(rng.random() < 0.5), options.crop)
            if rng.random() < options.blur:
                view = np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.2)), np.uint8)
            images[k].append(view)
            labels[k].append(label)
    count, side = 2 * len(places), options.crop
    pixels = torch.from_numpy(np.stack(images[0] + images[1])).float().flatten(1, 2)
    change = torch.from_numpy(np.stack([_colour_change(rng, options.colour) for _ in range(count)]))
    changed = torch.baddbmm(change[:, None, :, 3], pixels, change[:, :, :3].mT).clamp_(0, 255)
    square = changed.view(count, side, side, 3).permute(0, 3, 1, 2)
    stacked = torch.from_numpy(np.stack(labels[0] + labels[1])).permute(0, 3, 1, 2).long()
    return SegmentViews(normalise(square).contiguous(), stacked.contiguous())


def _two_boxes(height: int, width: int, rng: np.random.Generator, options: SegmentViewOptions) -> list[tuple[float, float, float, float]]:
    """Two rectangles (left, top, width, height) of an image that overlap enough."""
    shorter = min(height, width)
    while True:
        boxes = []
        for _ in range(2):
            side = rng.uniform(options.smallest, options.largest) * shorter
            aspect = np.exp(rng.uniform(-options.aspect, options.aspect))
            w, h = min(side * aspect, width), min(side / aspect, height)
            boxes.append((rng.uniform(0, width - w), rng.uniform(0, height - h), w, h))
        (x, y, w, h), (x2, y2, w2, h2) = boxes
        shared = max(0.0, min(x + w, x2 + w2) - max(x, x2)) * max(0.0, min(y + h, y2 + h2) - max(y, y2))
        if shared >= options.overlap * min(w * h, w2 * h2):
            return boxes


def _view(image: UInt8, segments: UInt8, box: tuple[float, float, float, float], mirrored: bool, side: int) -> tuple[UInt8, UInt8]:
    """The rectangle as (side, side, 3) and its segments as (side/4, side/4, levels)."""
    x, y, w, h = box

    def back(size: int, scale: float) -> Float32:
        """From pixel centres of a view of ``size`` to those of the image shrunk by ``scale``."""
        step = -w / size if mirrored else w / size
        left = (x + w if mirrored else x) + step / 2
        return np.array([[step * scale, 0, left * scale - 0.5], [0, h / size * scale, (y + h / size / 2) * scale - 0.5]], np.float32)

    view = cv2.warpAffine(image, back(side, 1.0), (side, side), flags=_LINEAR, borderMode=cv2.BORDER_REFLECT)
    small = side // STRIDE
    label = cv2.warpAffine(segments, back(small, 1 / LABEL_STRIDE), (small, small), flags=_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8), np.asarray(label, np.uint8).reshape(small, small, -1)


def _colour_change(rng: np.random.Generator, strength: float) -> Float:
    """A random change of colours as an affine map (3, 4) float32 of RGB in 0 … 255; the same numbers are drawn whatever they give."""
    chance, grey = rng.random(2)
    light, contrast, saturation = 1 + rng.uniform(-0.4, 0.4, 3) * strength
    cast = 1 + rng.uniform(-0.1, 0.1, 3) * strength
    out = np.zeros((3, 4), np.float32)
    out[:, :3] = np.eye(3)
    if chance < 0.8:
        saturation = 0.0 if grey < 0.125 * strength else saturation
        mixed = np.eye(3, dtype=np.float32) * saturation + (1 - saturation) * _LUMA[None]
        out[:, :3] = mixed * (contrast * light) * cast[:, None]
        out[:, 3] = 255 * 0.45 * (1 - contrast)
    return out
