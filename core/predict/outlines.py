"""From a network's mask logits to masks in an image's own pixels, box by box."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.boxes import Box, encode_box
from ovskit.core.records import Rle, UInt8
from ovskit.core.runtime.kernels import njit

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def outline(logits: Float32, height: int, width: int) -> Rle:
    """The mask of an image of ``height`` × ``width`` pixels where ``logits`` (h, w) are above 0.

    Logits are interpolated bilinearly between the middles of their cells, and held constant beyond the outermost, as torch
    does without ``align_corners``; only the box that can be above 0 is computed.
    """
    box = _box(logits, height, width)
    pixels = np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)
    _threshold(logits, box[0], box[1], height, width, pixels)
    return encode_box(pixels, box, height, width)


def _box(logits: Float32, height: int, width: int) -> Box:
    """The box of the image (top, left, bottom, right) outside which no interpolated logit is above 0."""
    above = logits > 0
    rows, cols = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    h, w = logits.shape
    # A cell has a say up to the middles of its neighbours.
    top, bottom = int(np.floor((rows[0] - 0.5) * height / h)), int(np.ceil((rows[-1] + 1.5) * height / h))
    left, right = int(np.floor((cols[0] - 0.5) * width / w)), int(np.ceil((cols[-1] + 1.5) * width / w))
    return max(0, top), max(0, left), min(height, bottom), min(width, right)


@njit(nogil=True, cache=True)
def _threshold(logits: Float32, top: int, left: int, height: int, width: int, out: UInt8) -> None:
    h, w = logits.shape
    columns = np.empty(out.shape[1], np.int64)
    shares = np.empty(out.shape[1], np.float32)
    for x in range(out.shape[1]):
        at = min(max((left + x + 0.5) * w / width - 0.5, 0.0), w - 1.0)
        columns[x] = int(at)
        shares[x] = at - columns[x]
    for y in range(out.shape[0]):
        at = min(max((top + y + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        row = int(at)
        below = min(row + 1, h - 1)
        share = np.float32(at - row)
        for x in range(out.shape[1]):
            column = columns[x]
            beside = min(column + 1, w - 1)
            here = logits[row, column] + shares[x] * (logits[row, beside] - logits[row, column])
            there = logits[below, column] + shares[x] * (logits[below, beside] - logits[below, column])
            out[y, x] = here + share * (there - here) > 0
