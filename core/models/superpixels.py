"""Fine superpixels of a photograph at several scales: Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image
Segmentation", IJCV 59(2), 2004.

Pixels are joined to their eight neighbours by edges that weigh the distance of their colours. In ascending order of
weight, an edge joins its two components if it weighs no more than MInt, the smaller of Int(C) + k / |C| over both (Eq. 4
and 5), Int(C) being the heaviest edge that joined C. Then components below a least size are joined along the same edges.

scikit-image has the same, but a run of it takes as long as six scales take here: edges are weighed and sorted once, and every
scale is one more pass over them. And it holds the interpreter lock.

Everything is integers, so the same image gives the same superpixels on every machine: colours are smoothed by [1 6 1] / 8
in both directions (a variance of 0.25: the sigma of 0.5 of scikit-image's default [choice]; the paper has 0.8), which makes
them whole multiples of 1/64 of a level of 0 to 255. Weights are rounded to such units too. Equal weights are taken in order
of pixels, column by column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.masks.union_find import root as root_of
from ovskit.core.records import Int32, UInt8
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]
UInt16 = npt.NDArray[np.uint16]

UNIT = 64  # of one level of colour
# The farthest two colours can be: √3 · 255 levels.
_HEAVIEST = math.isqrt(3 * (255 * UNIT) ** 2) + 1


@dataclass(frozen=True, slots=True)
class Superpixels:
    """Several partitions of one image.

    ``labels`` (maps, w, h) int32, column-major like run-length masks, from 0 in each map; ``sizes`` (maps, n) int64 counts the
    image's pixels of each label, n the largest number of labels. w × h may be smaller than the image: pixel (y, x) is
    ``labels[map, cols[x], rows[y]]``, with ``rows`` (height,) and ``cols`` (width,) int64.
    """

    labels: Int32
    sizes: Int64
    rows: Int64
    cols: Int64


def superpixels(pixels: UInt8, scales: tuple[float, ...], smallest: int, most_pixels: int) -> Superpixels:
    """One partition of ``pixels`` (H, W, 3) uint8 RGB for each of ``scales``.

    ``scales`` are k in levels of 0 to 255; ``smallest`` is the least size in pixels. An image of more than ``most_pixels``
    is shrunk to so many first, by whole areas, and both count its pixels then. Needs some 60 bytes a pixel at a time and
    4 for every scale.
    """
    height, width = pixels.shape[:2]
    shrink = min(1.0, math.sqrt(most_pixels / (height * width)))
    h, w = max(1, round(height * shrink)), max(1, round(width * shrink))
    small = pixels if (h, w) == (height, width) else np.asarray(cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    weights = edge_weights(smooth(small))
    order = sort_edges(weights)
    labels = np.empty((len(scales), w, h), np.int32)
    counts = [_partition(weights, order, h, scale * UNIT, smallest, labels[k].reshape(-1)) for k, scale in enumerate(scales)]
    rows = (np.arange(height, dtype=np.int64) * h) // height
    cols = (np.arange(width, dtype=np.int64) * w) // width
    covered = np.bincount(cols, minlength=w)[:, None] * np.bincount(rows, minlength=h)[None, :]
    sizes = np.zeros((len(scales), max(counts)), np.int64)
    for k in range(len(scales)):
        _add_sizes(labels[k], covered, sizes[k])
    return Superpixels(labels, sizes, rows, cols)


def smooth(pixels: UInt8) -> Int32:
    """``pixels`` (h, w, 3) smoothed by [1 6 1] / 8 in both directions, in 1/64: int32 (w, h, 3). The border is repeated."""
    wide = np.pad(pixels.transpose(1, 0, 2), ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.int32)
    across = wide[:-2] + 6 * wide[1:-1] + wide[2:]
    return across[:, :-2] + 6 * across[:, 1:-1] + across[:, 2:]


@njit(nogil=True, cache=True)
def edge_weights(colours: Int32) -> UInt16:
    """Weights of the edges from every pixel to the next one down, and to the three in the next column: uint16 (w, h, 4).

    ``colours`` int32 (w, h, 3). In the order down, up and right, right, down and right; 65535 where there is no such pixel.
    """
    width, height, channels = colours.shape
    weights = np.full((width, height, 4), 65535, np.uint16)
    for x in range(width):
        for y in range(height):
            for e in range(4):
                nx = x if e == 0 else x + 1
                ny = y + 1 if e == 0 else y + e - 2
                if nx < width and 0 <= ny < height:
                    total = 0
                    for c in range(channels):
                        d = colours[x, y, c] - colours[nx, ny, c]
                        total += d * d
                    weights[x, y, e] = int(np.sqrt(np.float64(total)) + 0.5)
    return weights


@njit(nogil=True, cache=True)
def sort_edges(weights: UInt16) -> Int32:
    """Edges that there are, as indices into ``weights`` read flat, lightest first, equal ones in order."""
    flat = weights.reshape(-1)
    first = np.zeros(_HEAVIEST + 2, np.int64)
    for k in range(len(flat)):
        if flat[k] != 65535:
            first[flat[k] + 1] += 1
    for weight in range(_HEAVIEST + 1):
        first[weight + 1] += first[weight]
    order = np.empty(first[-1], np.int32)
    for k in range(len(flat)):
        if flat[k] != 65535:
            order[first[flat[k]]] = k
            first[flat[k]] += 1
    return order


@njit(nogil=True, cache=True)
def _partition(weights: UInt16, order: Int32, height: int, k: float, smallest: int, labels: Int32) -> int:
    """Components at scale ``k``, numbered by their first pixel into ``labels`` (w · h,); returns how many."""
    flat = weights.reshape(-1)
    step = np.array([1, height - 1, height, height + 1])
    parent = np.arange(len(labels)).astype(np.int32)
    size = np.ones(len(labels), np.int32)
    limit = np.full(len(labels), k, np.float64)  # Int(C) + k / |C|
    between = np.empty(len(order), np.int32)  # edges that do not join: only they can join small components later
    refused = 0
    for edge in order:
        a = root_of(parent, edge >> 2)
        b = root_of(parent, (edge >> 2) + step[edge & 3])
        weight = flat[edge]
        if a == b:
            continue
        if weight <= limit[a] and weight <= limit[b]:
            a = _join(parent, size, a, b)
            limit[a] = weight + k / size[a]
        else:
            between[refused] = edge
            refused += 1
    for edge in between[:refused]:
        a = root_of(parent, edge >> 2)
        b = root_of(parent, (edge >> 2) + step[edge & 3])
        if a != b and (size[a] < smallest or size[b] < smallest):
            _join(parent, size, a, b)
    name = np.full(len(labels), -1, np.int32)
    count = 0
    for i in range(len(labels)):
        root = root_of(parent, i)
        if name[root] < 0:
            name[root] = count
            count += 1
        labels[i] = name[root]
    return count


@njit(nogil=True, cache=True)
def _join(parent: Int32, size: Int32, a: int, b: int) -> int:
    if size[a] < size[b]:
        a, b = b, a
    parent[b] = a
    size[a] += size[b]
    return a


@njit(nogil=True, cache=True)
def _add_sizes(labels: Int32, covered: Int64, sizes: Int64) -> None:
    for x in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            sizes[labels[x, y]] += covered[x, y]
