"""One picture of an image with its masks over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovskit.core.masks.paint import topmost
from ovskit.core.records import Int32, MaskSet, UInt8
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.colours import colours
from ovskit.core.show.views import larger_first, order_by_area, runs_in_order

_LINE = np.array([255, 255, 255], np.float32)
_LINE_OPACITY = 0.85
_SHADE = 0.6  # of what is beside a line: a white line on a white wall would be lost
_STRIPE = 5  # width of a hatched mask's stripes, in widths of a line
_BETWEEN = 0.25  # of the opacity, between the stripes, and of what is drawn faintly
_PIXELS_PER_LINE = 1000  # a line is one pixel wide up to 1500 pixels, two up to 2500 …


@dataclass(frozen=True, slots=True)
class Paint:
    """How masks are drawn, one row a mask in ``larger_first`` order: ``rgb`` uint8 (n, 3), ``hatched`` and ``faint`` bool (n,).

    A hatched mask is drawn in stripes, with lines of its own colour around it; a faint one with a quarter of the opacity.
    """

    rgb: UInt8
    hatched: np.ndarray
    faint: np.ndarray | None = None


def overlay(
    image: UInt8, masks: MaskSet, *, opacity: float = 0.55, outlines: bool = True, paint: Paint | None = None, thickness: int | None = None
) -> UInt8:
    """``image`` (H, W, 3) uint8 RGB with ``masks`` in colour over it; same shape and type, the input is not changed.

    Larger masks lie below, smaller ones above; the colour follows the mask's rank by area, or ``paint``. ``opacity`` in
    [0, 1] is the masks'; ``outlines`` draws light lines, shaded on both sides, where one mask or none meets another,
    ``thickness`` pixels wide; by default as the size asks for. Raises InputError if the image has not the size its masks
    have, UsageError for another opacity.
    """
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity must be from 0 to 1, not {opacity}")
    check_picture(image, masks)
    ordered = larger_first(masks)
    if not ordered:
        return image.copy()
    if paint is None:
        paint = Paint(colours(len(ordered)), np.zeros(len(ordered), np.bool_))
    return painted(image, topmost(runs_in_order(masks, order_by_area(masks))), paint, opacity, outlines, thickness)


def painted(image: UInt8, top: Int32, paint: Paint, opacity: float, outlines: bool, thickness: int | None) -> UInt8:
    """``image`` below the labels ``top`` (H, W), where k is drawn as row k - 1 of ``paint`` and 0 is nothing; see ``overlay``."""
    wide = thickness or max(1, round(max(top.shape) / _PIXELS_PER_LINE))
    palette = np.concatenate([np.zeros((1, 3), np.float32), paint.rgb.astype(np.float32)])
    alpha = np.where(top > 0, np.float32(opacity), np.float32(0))
    if paint.faint is not None and paint.faint.any():
        alpha[np.concatenate([[False], paint.faint])[top]] *= _BETWEEN
    striped = np.concatenate([[False], paint.hatched]) if paint.hatched.any() else None
    if striped is not None:
        alpha[striped[top] & _stripes(top.shape, _STRIPE * wide)] *= _BETWEEN
    mixed = image * (1 - alpha[..., None]) + palette[top] * alpha[..., None]
    if outlines:
        line = _outline(top, wide)
        beside = _grow(line) & ~line
        mixed[beside] *= _SHADE
        mixed[line] += _LINE_OPACITY * (_LINE - mixed[line])
        if striped is not None:
            own = line & striped[top]
            mixed[own] = palette[top[own]]
    return np.rint(mixed).astype(np.uint8)


def _stripes(shape: tuple[int, int], width: int) -> np.ndarray:
    """Every other diagonal stripe of a (H, W) picture."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((x + y) % (2 * width) >= width)


def check_picture(image: UInt8, masks: MaskSet) -> None:
    """Raises InputError unless ``image`` is uint8 RGB of the size that ``masks.image`` says."""
    height, width = masks.image.height, masks.image.width
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{masks.image.file_name!r}: a picture to draw on is uint8 RGB (H, W, 3), not {image.dtype} {image.shape}")
    if image.shape[:2] != (height, width):
        raise InputError(
            f"{masks.image.file_name!r} is {image.shape[1]}×{image.shape[0]} pixels, but its masks were made for {width}×{height}: "
            "give the folder of the images the masks were made from"
        )


def _outline(labels: Int32, thickness: int) -> np.ndarray:
    """Where a label meets another: ``thickness`` pixels, straddling the border."""
    line = np.zeros(labels.shape, np.bool_)
    line[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    line[1:, :] |= labels[1:, :] != labels[:-1, :]
    for k in range(thickness - 1):
        line = _grow(line, before=k % 2 == 0, after=k % 2 == 1)
    return line


def _grow(line: np.ndarray, *, before: bool = True, after: bool = True) -> np.ndarray:
    grown = line.copy()
    if before:
        grown[:-1] |= line[1:]
        grown[:, :-1] |= line[:, 1:]
    if after:
        grown[1:] |= line[:-1]
        grown[:, 1:] |= line[:, :-1]
    return grown
