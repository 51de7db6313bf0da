"""One vector for every mask: the mean of the patches in it, each by the share of the mask that it holds."""

from __future__ import annotations

import numpy as np
import torch

from ovskit.core.masks.runs import table_of
from ovskit.core.predict.dense.mosaic import Mosaic
from ovskit.core.records import Float, Int64, MaskSet
from ovskit.core.runtime.kernels import njit


def pooled_vectors(mosaic: Mosaic, masks: MaskSet) -> Float:
    """(n, d) float32 of length 1 of the masks of an image, by vectors in ``mosaic``; zeros for a mask without pixels.

    The image is seen as a grid of patches as fine as a window's; pixels of a mask take the vector of the patch that they are in.
    """
    height, width = masks.image.height, masks.image.width
    rows, columns = mosaic.grid()
    vectors = mosaic.at(rows, columns).reshape(rows * columns, -1)
    if not masks.masks:
        return np.zeros((0, vectors.shape[1]), np.float32)
    table = table_of(masks)
    weights = cell_areas(table.starts, table.ends, table.offsets, height, _cell_of(height, rows), _cell_of(width, columns), rows, columns)
    found = torch.from_numpy(weights).to(vectors.device) @ vectors
    return torch.nn.functional.normalize(found, dim=1).cpu().numpy()


def _cell_of(pixels: int, cells: int) -> Int64:
    """The cell that each pixel of an axis is in."""
    return np.minimum(((np.arange(pixels) + 0.5) * cells / pixels).astype(np.int64), cells - 1)


@njit(nogil=True, cache=True)
def cell_areas(starts: Int64, ends: Int64, offsets: Int64, height: int, row_of: Int64, column_of: Int64, rows: int, columns: int) -> Float:
    """(n, rows · columns) float32: how many pixels of each mask are in each cell; runs are column-major pixels [start, end)."""
    found = np.zeros((len(offsets) - 1, rows * columns), np.float32)
    for k in range(len(offsets) - 1):
        for r in range(offsets[k], offsets[k + 1]):
            for at in range(starts[r], ends[r]):
                found[k, row_of[at % height] * columns + column_of[at // height]] += 1
    return found
