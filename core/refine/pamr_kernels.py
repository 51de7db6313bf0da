"""Compiled sums of ``pamr``: all masks of an image, row by row.

The weights of one image row serve all masks that cross it; those of a large image are made when the row's turn comes, so that nothing of
the size neighbours × image is stored. Every sum runs over the neighbours in one order, so no result depends on which masks are computed
together.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.kernels import njit

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@njit(inline="always")
def _clamped(at: int, size: int) -> int:
    return min(max(at, 0), size - 1)


@njit(nogil=True, cache=True)
def colour_scales(planes: Float32, offsets: Int64, floor: float, share: float) -> Float32:
    """1 / (``floor`` + ``share`` · σ), float32 (3, H, W): σ is the standard deviation of a colour of ``planes`` (3, H, W) over what is
    ``offsets`` (n, 2) from a pixel, of n - 1 degrees of freedom; beyond the image's border lies what is on it."""
    channels, height, width = planes.shape
    out = np.empty((channels, height, width), np.float32)
    count = len(offsets)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                total, squares = 0.0, 0.0
                own = float(planes[c, y, x])  # differences to it cancel nothing where all is alike
                for o in range(count):
                    one = float(planes[c, _clamped(y + offsets[o, 0], height), _clamped(x + offsets[o, 1], width)]) - own
                    total += one
                    squares += one * one
                variance = max(0.0, (squares - total * total / count) / (count - 1))
                out[c, y, x] = np.float32(1 / (floor + share * math.sqrt(variance)))
    return out


@njit(nogil=True, cache=True)
def weights_of_row(planes: Float32, scales: Float32, offsets: Int64, y: int, left: int, right: int, out: Float32) -> None:
    """Into ``out`` (n, W) the weights of row ``y`` from ``left`` to ``right``: a softmax over the ``offsets`` (n, 2) of minus the mean over
    colours of |difference| times its scale."""
    channels, height, width = planes.shape
    for x in range(left, right):
        most = np.float32(-np.inf)
        for o in range(len(offsets)):
            there_y, there_x = _clamped(y + offsets[o, 0], height), _clamped(x + offsets[o, 1], width)
            total = np.float32(0)
            for c in range(channels):
                total -= abs(planes[c, there_y, there_x] - planes[c, y, x]) * scales[c, y, x]
            total /= np.float32(channels)
            out[o, x] = total
            most = max(most, total)
        total = np.float32(0)
        for o in range(len(offsets)):
            out[o, x] = math.exp(out[o, x] - most)
            total += out[o, x]
        for o in range(len(offsets)):
            out[o, x] /= total


@njit(nogil=True, cache=True)
def spread(
    planes: Float32, scales: Float32, offsets: Int64, boxes: Int64, starts: Int64, beliefs: Float32, iterations: int, most: int
) -> Float32:
    """``beliefs`` after so many parallel updates, each the weighted mean of its neighbours'.

    ``boxes`` (m, 4) are (top, left, bottom, right) of the masks' crops; pixels of mask k are row-major from ``starts[k]`` on in
    ``beliefs``, float32 in [0, 1], and in the result. Outside its crop a mask is not believed anywhere. Weights are kept
    where there are at most so many, else made anew for every row of every iteration.
    """
    _, height, width = planes.shape
    old, new = beliefs.copy(), np.empty_like(beliefs)
    top, bottom = boxes[:, 0].min(), boxes[:, 2].max()
    keeps = (bottom - top) * len(offsets) * width <= most
    weights = np.empty((bottom - top if keeps else 1, len(offsets), width), np.float32)
    for iteration in range(iterations):
        for y in range(top, bottom):
            left, right = width, 0
            for k in range(len(boxes)):
                if boxes[k, 0] <= y < boxes[k, 2]:
                    left, right = min(left, boxes[k, 1]), max(right, boxes[k, 3])
            if right <= left:
                continue
            own = weights[y - top if keeps else 0]
            if iteration == 0 or not keeps:
                weights_of_row(planes, scales, offsets, y, left, right, own)
            for k in range(len(boxes)):
                if boxes[k, 0] <= y < boxes[k, 2]:
                    _hear(own, offsets, boxes[k], starts[k], y, height, width, old, new)
        old, new = new, old
    return old


@njit(nogil=True, cache=True)
def _hear(weights: Float32, offsets: Int64, box: Int64, start: int, y: int, height: int, width: int, old: Float32, new: Float32) -> None:
    """Row ``y`` of one mask: the weighted sums of what its neighbours believe."""
    top, left, bottom, right = box
    wide = right - left
    at = start + (y - top) * wide
    heard = new[at : at + wide]
    heard[:] = 0
    for o in range(len(offsets)):
        there_y, dx = _clamped(y + offsets[o, 0], height), offsets[o, 1]
        if not top <= there_y < bottom:
            continue
        row = old[start + (there_y - top) * wide : start + (there_y - top + 1) * wide]
        # From the left edge of the image, from within the crop, from the right edge.
        first, last = max(0, -dx), min(wide, wide - dx)
        if left == 0:
            for x in range(min(first, wide)):
                heard[x] += weights[o, x] * row[0]
        if right == width:
            for x in range(max(last, 0), wide):
                heard[x] += weights[o, left + x] * row[wide - 1]
        if last > first:
            into, weight, sent = heard[first:last], weights[o, left + first : left + last], row[first + dx : last + dx]
            for x in range(last - first):
                into[x] += weight[x] * sent[x]
