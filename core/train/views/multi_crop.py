"""Multi-crop: some large and many small views of a photograph, cut, recoloured and blurred at random.

Views, their shares of the photograph and their changes are those of DINO (Caron et al., ICCV 2021, Section 3.2 and
appendix): multi-crop is SwAV's (Caron et al., NeurIPS 2020), colours, blur and solarisation are BYOL's (Grill et al., NeurIPS
2020, Table 6), with DINO's shares of blurred views. What a batch holds is a function of the generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ovskit.core.records import UInt8
from ovskit.core.train.data.pool_cache import PoolCache
from ovskit.core.train.views.colours import Jitter, blurred, grey, jittered, solarised
from ovskit.core.train.views.colours import turn_hue as turn_hue

Box = tuple[int, int, int, int]

# Shares of the views that are changed, and by how much at most: BYOL's.
_JITTERED = 0.8
_JITTER = Jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_GREY = 0.2
_BLUR = (0.1, 2.0)  # pixels, σ
_BLURRED_GLOBALS = (1.0, 0.1)  # the first and the second large view
_SOLARISED_GLOBALS = (0.0, 0.2)
_BLURRED_LOCALS = 0.5
_ASPECT = 4 / 3
_TRIES = 10


@dataclass(frozen=True, slots=True)
class CropOptions:
    """``global_crop`` and ``local_crop`` are the sides of large and small views in pixels, ``local_crops`` the number of small ones.

    A large view shows from ``smallest_global`` of the photograph's area to all of it, a small one from ``smallest_local`` to
    ``smallest_global`` (Section 3.2; the paper has 0.4 and 0.05).
    """

    global_crop: int = 224
    local_crop: int = 96
    local_crops: int = 8
    smallest_global: float = 0.4
    smallest_local: float = 0.05


class Crops(NamedTuple):
    """Views of n photographs, RGB in 0 to 255, uint8: ``large`` (n, 2, 3, G, G) and ``small`` (n, L, 3, l, l)."""

    large: torch.Tensor
    small: torch.Tensor


def draw_crops(cache: PoolCache, places: Sequence[int], rng: np.random.Generator, options: CropOptions) -> Crops:
    """The views of the photographs of ``places``; everything random comes from ``rng``, in order."""
    count, o = len(places), options
    large = np.empty((count, 2, o.global_crop, o.global_crop, 3), np.uint8)
    small = np.empty((count, o.local_crops, o.local_crop, o.local_crop, 3), np.uint8)
    for n, place in enumerate(places):
        image = np.ascontiguousarray(cache[place][0])
        for k in range(2):
            view = _view(image, rng, (o.smallest_global, 1.0), o.global_crop)
            large[n, k] = _changed(view, rng, _BLURRED_GLOBALS[k], _SOLARISED_GLOBALS[k])
        for k in range(o.local_crops):
            view = _view(image, rng, (o.smallest_local, o.smallest_global), o.local_crop)
            small[n, k] = _changed(view, rng, _BLURRED_LOCALS, 0.0)
    return Crops(_channels_first(large), _channels_first(small))


def draw_box(height: int, width: int, rng: np.random.Generator, share: tuple[float, float]) -> Box:
    """A random rectangle (left, top, width, height), in whole pixels within the image.

    Its area is uniform in ``share`` of the image's, its aspect log-uniform in 3/4 to 4/3 (Szegedy et al., CVPR 2015, Section
    6). One that does not fit is drawn again; after ten, the share is kept if at all possible and the aspect given up
    [choice: long photographs would otherwise have no small views].
    """
    area = share[0] * height * width
    for _ in range(_TRIES):
        area = rng.uniform(*share) * height * width
        aspect = np.exp(rng.uniform(-np.log(_ASPECT), np.log(_ASPECT)))
        w, h = max(1, round(np.sqrt(area * aspect))), max(1, round(np.sqrt(area / aspect)))
        if w <= width and h <= height:
            break
    else:
        w = min(width, max(1, round(max(np.sqrt(area), area / height))))
        h = min(height, max(1, round(area / w)))
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h


def _view(image: UInt8, rng: np.random.Generator, share: tuple[float, float], side: int) -> UInt8:
    """A random rectangle as (side, side, 3), mirrored half the time."""
    x, y, w, h = draw_box(image.shape[0], image.shape[1], rng, share)
    # Averaging when it shrinks, so that nothing aliases, as Pillow's bicubic does in the authors' code.
    method = cv2.INTER_AREA if w * h > side * side else cv2.INTER_CUBIC
    view = cv2.resize(image[y : y + h, x : x + w], (side, side), interpolation=method)
    return np.asarray(cv2.flip(view, 1) if rng.random() < 0.5 else view, np.uint8)


def _changed(view: UInt8, rng: np.random.Generator, blur: float, solar: float) -> UInt8:
    """The view with its colours changed, blurred and solarised, each by its chance."""
    if rng.random() < _JITTERED:
        view = jittered(view, rng, _JITTER)
    if rng.random() < _GREY:
        view = grey(view)
    if rng.random() < blur:
        view = blurred(view, rng.uniform(*_BLUR))
    if rng.random() < solar:
        view = solarised(view)
    return view


def _channels_first(views: UInt8) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(views.transpose(0, 1, 4, 2, 3)))
