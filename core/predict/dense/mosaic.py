"""What windows found, put together and brought to any size, some rows at a time, so that memory does not grow with classes × pixels.

Every window's patches are interpolated bilinearly to the window's pixels, pixels that several windows show take their mean, and the canvas
is interpolated bilinearly to the image: mmseg's sliding inference. Interpolation is between the middles of cells, and constant beyond the
outermost, as torch does without ``align_corners``.

All of it is linear, and rows and columns do not know each other: with windows in a grid, the map is the sum over windows (i, j) of
A_i · cells_ij · B_jᵀ, where A_i (rows of the image × rows of cells) interpolates, divides by the number of windows there, and interpolates
again. Products of matrices do it some ten times faster than pixel by pixel, and no canvas is ever made.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from ovskit.core.predict.dense.windows import Windows
from ovskit.core.records import Float

_BAND = 1 << 22  # numbers in a band of rows: 16 MiB of float32


class Mosaic:
    """``maps`` (h, w, c) of each of the ``windows``, in their order, as one map of the whole image."""

    def __init__(self, windows: Windows, maps: Sequence[torch.Tensor]) -> None:
        self._windows = windows
        self.cells = (int(maps[0].shape[0]), int(maps[0].shape[1]))
        self.channels = int(maps[0].shape[2])
        self.device = maps[0].device
        across = len(windows.lefts)
        self._rows = [maps[k : k + across] for k in range(0, len(maps), across)]

    def bands(self, height: int, width: int) -> Iterator[tuple[int, int, torch.Tensor]]:
        """The map at ``height`` × ``width``, from top to bottom: first row, row after the last, (rows, width, c) float32."""
        windows, (cells_down, cells_across) = self._windows, self.cells
        columns = self._matrices(windows.lefts, windows.columns, windows.width, cells_across, width)
        # (h, width, c) of each row of windows.
        strips = [_sum(torch.matmul(b, cells.float()) for b, cells in zip(columns, row, strict=True)) for row in self._rows]
        down = self._matrices(windows.tops, windows.rows, windows.height, cells_down, height)
        rows = max(1, _BAND // (width * self.channels))
        for begin in range(0, height, rows):
            end = min(begin + rows, height)
            touching = [(a[begin:end], strip) for a, strip in zip(down, strips, strict=True) if bool(a[begin:end].any())]
            band = _sum(a @ strip.reshape(cells_down, -1) for a, strip in touching)
            yield begin, end, band.view(end - begin, width, self.channels)

    def grid(self) -> tuple[int, int]:
        """Rows and columns of a grid over the whole image whose cells are as large as those of the windows."""
        windows = self._windows
        return max(1, round(windows.height * self.cells[0] / windows.rows)), max(1, round(windows.width * self.cells[1] / windows.columns))

    def at(self, height: int, width: int) -> torch.Tensor:
        """The whole map at ``height`` × ``width``, (height, width, c)."""
        return torch.cat([band for _, _, band in self.bands(height, width)])

    def _matrices(self, starts: tuple[int, ...], side: int, canvas: int, cells: int, points: int) -> list[torch.Tensor]:
        return [torch.from_numpy(one).to(self.device) for one in _matrices(starts, side, canvas, cells, points)]


def _sum(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(torch.add, tensors)


@functools.lru_cache(maxsize=16)
def _matrices(starts: tuple[int, ...], side: int, canvas: int, cells: int, points: int) -> list[Float]:
    """A matrix (points, cells) float32 for each window of ``side`` pixels along an axis of ``canvas`` pixels that becomes ``points``."""
    count = np.zeros(canvas)
    for start in starts:
        count[start : start + side] += 1
    to_image, to_window = interpolation(canvas, points), interpolation(cells, side)
    found = []
    for start in starts:
        share = to_window / count[start : start + side, None]
        found.append((to_image[:, start : start + side] @ share).astype(np.float32))
    return found


def interpolation(cells: int, points: int) -> Float:
    """The matrix (points, cells) float64 that interpolates linearly between the middles of ``cells`` at ``points`` evenly over them."""
    at = np.clip((np.arange(points) + 0.5) * cells / points - 0.5, 0, cells - 1)
    first = np.floor(at).astype(np.int64)
    matrix = np.zeros((points, cells))
    every = np.arange(points)
    matrix[every, first] = 1 - (at - first)
    matrix[every, np.minimum(first + 1, cells - 1)] += at - first
    return matrix
