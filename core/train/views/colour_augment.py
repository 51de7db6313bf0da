"""Strong changes of an image that leave its geometry alone: what a student sees where its teacher sees the plain view.

SOHES §3.3 learns from strongly augmented images; the paper names no numbers, these are HASSOD's (NeurIPS 2023), as in
SimCLR and the unbiased teacher: colour jitter (0.4, 0.4, 0.4, 0.1) in 80 %, grey in 20 %, blur of σ 0.1 to 2 in 50 %, random
erasing (Zhong et al., AAAI 2020). Weak views have none of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ovskit.core.records import UInt8
from ovskit.core.train.views.colours import Jitter, blurred, grey, jittered


@dataclass(frozen=True, slots=True)
class ColourOptions:
    """Chances, each in [0, 1], and their ranges.

    ``blur_sigma`` is in pixels. An erased rectangle has ``erased_area`` of the image's area and an aspect (height by width)
    log-uniform in ``erased_aspect``; its pixels are noise. [choice: erasing in half of the views, up to a fifth of one; Zhong et
    al. have up to 0.4, under which whole entities would go]
    """

    jitter: float = 0.8
    limits: Jitter = field(default_factory=Jitter)
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    erase: float = 0.5
    erased_area: tuple[float, float] = (0.02, 0.2)
    erased_aspect: tuple[float, float] = (0.3, 3.3)


def strongly_changed(image: UInt8, rng: np.random.Generator, options: ColourOptions) -> UInt8:
    """``image`` (h, w, 3) RGB uint8 with its colours changed, made grey, blurred, and a rectangle erased, each by its chance.

    The input is not written to. Masks stay as they are: what is erased must be inferred.
    """
    if rng.random() < options.jitter:
        image = jittered(image, rng, options.limits)
    if rng.random() < options.grey:
        image = grey(image)
    if rng.random() < options.blur:
        image = blurred(image, rng.uniform(*options.blur_sigma))
    if rng.random() < options.erase:
        image = erased(image, rng, options)
    return image


def erased(image: UInt8, rng: np.random.Generator, options: ColourOptions) -> UInt8:
    """A copy of ``image`` with a random rectangle of uniform noise, cut to the image where it would be longer or wider."""
    height, width = image.shape[:2]
    area = rng.uniform(*options.erased_area) * height * width
    aspect = np.exp(rng.uniform(*np.log(options.erased_aspect)))
    h = min(height, max(1, round(np.sqrt(area * aspect))))
    w = min(width, max(1, round(np.sqrt(area / aspect))))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    out = image.copy()
    out[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
    return out
