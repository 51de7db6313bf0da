"""Compiled mean-field updates of ``convcrf`` for the CPU: all masks of an image, row by row, weights made on the way.

Nothing of the size window × image is stored: the weights of one image row are made when the row's turn comes, stay in the
cache, and serve all masks that cross the row. Every sum runs over the window in one order, so no result depends on
which masks are computed together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from ovskit.core.runtime.kernels import njit

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_LOG2E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-87.0)  # the smallest exponent whose exp is a normal float32
# exp2(f) for |f| ≤ 0.5: ln(2)^k / k!, relative error 2e-8
_C = tuple(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 8))
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = _C
_ONE = np.float32(1)
_HALF = np.float32(0.5)


def _bitcast(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


_from_bits: Any = intrinsic(_bitcast)  # the float32 that 32 bits of an integer are


@njit(inline="always")
def _exp(x: np.float32) -> np.float32:
    """exp(x) for |x| ≤ 87, in operations that a compiler can run sixteen at a time, as it cannot the library's."""
    y = x * _LOG2E
    n = math.floor(y + _HALF)
    f = np.float32(y - n)
    p = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * (_C6 + f * _C7))))))
    return p * _from_bits(types.int32((types.int32(n) + types.int32(127)) << types.int32(23)))


@njit(nogil=True, cache=True, fastmath={"contract"})
def _affinity_row(
    planes: Float32, y: int, dy: int, dx: int, distance: np.float32, share: np.float32, left: int, right: int, out: Float32
) -> None:
    """``share`` times exp(-|Δposition|² / 2σ² - |Δcolour|²) between row ``y`` and what is (dy, dx) away; 0 where that is outside."""
    height, width = planes.shape[1], planes.shape[2]
    out[left:right] = 0
    if not 0 <= y + dy < height:
        return
    first, last = max(left, -dx), min(right, width - dx)
    if last <= first:
        return
    row = out[first:last]
    here0, here1, here2 = planes[0, y, first:last], planes[1, y, first:last], planes[2, y, first:last]
    there0 = planes[0, y + dy, first + dx : last + dx]
    there1 = planes[1, y + dy, first + dx : last + dx]
    there2 = planes[2, y + dy, first + dx : last + dx]
    for x in range(last - first):
        a, b, c = here0[x] - there0[x], here1[x] - there1[x], here2[x] - there2[x]
        row[x] = share * _exp(max(_LOWEST, -(distance + (a * a + b * b + c * c))))


@njit(nogil=True, cache=True, fastmath={"contract"})
def mean_field(
    planes: Float32, offsets: Int64, distance: Float32, share: Float32, near: Float32,
    boxes: Int64, starts: Int64, unary: Float32, colour_compat: float, place_compat: float, iterations: int,
) -> Float32:  # fmt: skip
    """tanh(log-odds / 2) of foreground after ``iterations`` parallel updates, every mask in a crop of its own.

    ``planes`` (3, H, W) are the colours in units of √2 σ; ``offsets`` (n, 2) the window's (dy, dx); ``distance`` (n,) its
    |Δposition|²/2σ²; ``share`` (n,) the pixels that each sample stands for; ``near`` (n,) the Gaussian kernel, shares
    included. ``boxes`` (m, 4) are (top, left, bottom, right); pixels of mask k are row-major from ``starts[k]`` on in
    ``unary``, the log-odds that they begin with, and in the result. The kernels' weights are the two ``compat``.
    """
    width = planes.shape[2]
    pixels = len(unary)
    by_colour, by_place = np.float32(colour_compat), np.float32(place_compat)
    # What normalises the kernels, 1/√(row sum), and what pixels send to others: that times their 2 Q - 1.
    colour_scale, place_scale = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    colour_old, place_old = np.ones(pixels, np.float32), np.ones(pixels, np.float32)
    colour_new, place_new = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    out = np.empty(pixels, np.float32)
    weights = np.empty((len(offsets), width), np.float32)
    colour_sum, place_sum = np.empty(width, np.float32), np.empty(width, np.float32)
    top, bottom = boxes[:, 0].min(), boxes[:, 2].max()
    for iteration in range(iterations + 1):
        for y in range(top, bottom):
            left, right = width, 0
            for k in range(len(boxes)):
                if boxes[k, 0] <= y < boxes[k, 2]:
                    left, right = min(left, boxes[k, 1]), max(right, boxes[k, 3])
            if right <= left:
                continue
            for o in range(len(offsets)):
                _affinity_row(planes, y, offsets[o, 0], offsets[o, 1], distance[o], share[o], left, right, weights[o])
            for k in range(len(boxes)):
                if not boxes[k, 0] <= y < boxes[k, 2]:
                    continue
                _listen(weights, near, offsets, boxes[k], y, starts[k], colour_old, place_old, colour_sum, place_sum)
                wide = boxes[k, 3] - boxes[k, 1]
                at = starts[k] + (y - boxes[k, 0]) * wide
                row = slice(at, at + wide)
                given, believed, scale_c, scale_p = unary[row], out[row], colour_scale[row], place_scale[row]
                send_c, send_p = colour_new[row], place_new[row]
                if iteration == 0:  # everybody has sent a 1: the sums are the kernels' row sums
                    for x in range(wide):
                        scale_c[x], scale_p[x] = _ONE / math.sqrt(colour_sum[x]), _ONE / math.sqrt(place_sum[x])
                        believed[x] = _tanh_half(given[x])
                else:
                    for x in range(wide):
                        heard = by_colour * scale_c[x] * colour_sum[x] + by_place * scale_p[x] * place_sum[x]
                        believed[x] = _tanh_half(given[x] + heard)
                for x in range(wide):
                    send_c[x], send_p[x] = scale_c[x] * believed[x], scale_p[x] * believed[x]
        colour_old, colour_new = colour_new, colour_old
        place_old, place_new = place_new, place_old
    return out


@njit(inline="always")
def _tanh_half(x: np.float32) -> np.float32:
    return np.float32(2) / (_ONE + _exp(min(-_LOWEST, max(_LOWEST, -x)))) - _ONE


@njit(nogil=True, cache=True, fastmath={"contract"})
def _listen(
    weights: Float32, near: Float32, offsets: Int64, box: Int64, y: int, start: int, by_colour: Float32, by_place: Float32,
    colour_sum: Float32, place_sum: Float32,
) -> None:  # fmt: skip
    """Sums over the window, as far as it lies in ``box``, of what the pixels there send, for every pixel of row ``y``."""
    top, left, bottom, right = box
    wide = right - left
    at = start + (y - top) * wide
    colour_sum[:wide] = 0
    place_sum[:wide] = 0
    for o in range(len(offsets)):
        dy, dx = offsets[o]
        if not top <= y + dy < bottom:
            continue
        first, last = max(0, -dx), min(wide, wide - dx)
        if last <= first:
            continue
        there = slice(at + dy * wide + dx + first, at + dy * wide + dx + last)
        heard, weight, sent = colour_sum[first:last], weights[o, left + first : left + last], by_colour[there]
        for x in range(last - first):
            heard[x] += weight[x] * sent[x]
        if near[o] > 0:
            heard, sent = place_sum[first:last], by_place[there]
            for x in range(last - first):
                heard[x] += near[o] * sent[x]
