"""The crop of an image that stands for a mask: its box with a margin, with or without the pixels outside the mask."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ovskit.core.masks.boxes import decode_box
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.families import image_size
from ovskit.core.records import Mask, RunTable, UInt8

_USUAL_SIZE = 224  # for models that state no size
# ImageNet's, for models that state no mean.
_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True, slots=True)
class CropOptions:
    """``size`` is the side in pixels that every crop is resized to, its aspect ignored; ``context`` how far a box is widened on each
    side, as a share of its own width and height (METHODS §2 has +10 % [choice: on each side]); ``masked``: whether pixels outside the mask
    are painted over in ``fill``.
    """

    size: int
    context: float = 0.1
    masked: bool = False
    fill: tuple[int, int, int] = (124, 116, 104)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the same for the same crops."""
        return asdict(self) | {"fill": list(self.fill) if self.masked else None}


def crop_options(spec: BackboneSpec, *, size: int | None = None, context: float = 0.1, masked: bool = False) -> CropOptions:
    """Crops for a model: of its own size unless ``size`` is given, a multiple of its patch; filled with the mean that it subtracts.

    Its own size is what its family says (``families.image_size``), else 224 [choice].
    """
    wanted = size or image_size(spec.model) or _USUAL_SIZE
    mean = spec.mean if any(spec.mean) else _MEAN
    fill = tuple(round(255 * value) for value in mean)
    return CropOptions(max(1, round(wanted / spec.stride)) * spec.stride, context, masked, (fill[0], fill[1], fill[2]))


def crop_box(bbox: tuple[float, float, float, float], height: int, width: int, context: float) -> tuple[int, int, int, int]:
    """(top, left, bottom, right), the last two exclusive, of a box (x, y, w, h) widened by ``context`` and cut off at the image.

    The margin is rounded to whole pixels. At least one pixel is left, wherever the box is.
    """
    x, y, w, h = bbox
    top, bottom = _span(y, h, height, context)
    left, right = _span(x, w, width, context)
    return top, left, bottom, right


def _span(start: float, length: float, limit: int, context: float) -> tuple[int, int]:
    margin = round(context * length)
    first = min(max(0, int(start) - margin), limit - 1)
    return first, max(first + 1, min(limit, int(np.ceil(start + length)) + margin))


def crop_mask(pixels: UInt8, mask: Mask, table: RunTable, k: int, options: CropOptions) -> UInt8:
    """The pixels (h, w, 3) of ``mask`` in an image (H, W, 3), not yet resized. A view of the image unless it is painted over.

    ``table`` has the mask's runs at ``k``.
    """
    height, width = pixels.shape[:2]
    top, left, bottom, right = crop_box(mask.bbox, height, width, options.context)
    crop = pixels[top:bottom, left:right]
    if options.masked:
        inside = decode_box(table, k, (top, left, bottom, right)).astype(np.bool_)
        crop = np.where(inside[..., None], crop, np.array(options.fill, np.uint8))
    return crop
