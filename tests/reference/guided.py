"""The guided filter as the paper writes it: every window cut out, its 3 × 3 system solved, in float64.

He, Sun and Tang, TPAMI 2013, Eq. 19 to 21. It shares nothing with ``ovskit.core.refine.guided``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def window(y: int, x: int, radius: int) -> tuple[slice, slice]:
    """The rows and columns around a pixel; NumPy cuts off what is beyond the far border."""
    return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)


def guided_filter(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], radius: int, eps: float) -> npt.NDArray[np.float64]:
    """The filtered ``mask`` (h, w) with the guide ``image`` (h, w, 3), whose colours count as 0 to 1."""
    height, width = mask.shape
    guide = image.astype(np.float64) / 255
    p = mask.astype(np.float64)
    a = np.zeros((height, width, 3))
    b = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            near = window(y, x, radius)
            colours = guide[near].reshape(-1, 3)
            values = p[near].ravel()
            centred = colours - colours.mean(0)
            covariance = centred.T @ centred / len(values)
            with_p = centred.T @ (values - values.mean()) / len(values)
            a[y, x] = np.linalg.solve(covariance + eps * np.eye(3), with_p)
            b[y, x] = values.mean() - a[y, x] @ colours.mean(0)
    q = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            near = window(y, x, radius)
            q[y, x] = a[near].reshape(-1, 3).mean(0) @ guide[y, x] + b[near].mean()
    return q
