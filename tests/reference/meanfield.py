"""Mean field of a CRF with two labels as Krähenbühl and Koltun tell it: every pair of pixels in a matrix, float64.

Quadratic in the number of pixels and meant to be read. It shares no code with ``ovskit.core.refine``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def _normalised(kernel: Float64) -> Float64:
    scale = 1 / np.sqrt(kernel.sum(axis=1))
    return scale[:, None] * kernel * scale[None, :]


def weights(
    pixels: npt.NDArray[np.uint8],
    counted: Float64,
    *,
    gaussian_sxy: float,
    gaussian_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
) -> Float64:
    """How much pixel i listens to pixel j, (h·w, h·w): both kernels normalised, weighted and added up.

    ``counted`` (h·w, h·w) is how many pixels j stands for when i sums up its neighbours: 1 everywhere is the dense CRF.
    """
    h, w, _ = pixels.shape
    place = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1).reshape(-1, 2).astype(np.float64)
    colour = pixels.reshape(-1, 3).astype(np.float64)
    apart = ((place[:, None] - place[None]) ** 2).sum(-1)
    differ = ((colour[:, None] - colour[None]) ** 2).sum(-1)
    gaussian = counted * np.exp(-apart / (2 * gaussian_sxy**2))
    bilateral = counted * np.exp(-apart / (2 * bilateral_sxy**2) - differ / (2 * bilateral_srgb**2))
    return gaussian_compat * _normalised(gaussian) + bilateral_compat * _normalised(bilateral)


def counted_in_window(h: int, w: int, shares: Mapping[tuple[int, int], float]) -> Float64:
    """``counted`` of a window: ``shares[dy, dx]`` for the pixel (dy, dx) away, 0 for those that it leaves out."""
    out = np.zeros((h * w, h * w))
    for y in range(h):
        for x in range(w):
            for (dy, dx), share in shares.items():
                if 0 <= y + dy < h and 0 <= x + dx < w:
                    out[y * w + x, (y + dy) * w + x + dx] = share
    return out


def foreground(listens: Float64, mask: npt.NDArray[np.bool_], confidence: float | Float64, iterations: int) -> Float64:
    """Probability of foreground (h, w) after parallel updates with two labels; ``confidence`` in the mask, of each pixel or of all."""
    given, sure = mask.ravel(), np.broadcast_to(confidence, mask.shape).ravel()
    unary = np.stack([np.where(given, 1 - sure, sure), np.where(given, sure, 1 - sure)])
    q = unary.copy()
    for _ in range(iterations):
        energy = np.log(unary) + q @ listens.T
        energy -= energy.max(axis=0)
        q = np.exp(energy) / np.exp(energy).sum(axis=0)
    return q[1].reshape(mask.shape)
