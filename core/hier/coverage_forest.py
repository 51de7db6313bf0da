"""Entities, their parts and the parts' parts: a forest of masks by who covers whom (SOHES, ICLR 2024, §3.1).

coverage(i, j) = |i ∩ j| / |i|. Mask j is an ancestor of mask i if coverage(i, j) > 0.9 and coverage(j, i) < 0.9 [paper]:
i lies in j, and j is more than i. The relation has no cycles, since an ancestor is larger, but it is not transitive: a
part may lie 0.91 in a hand that lies 0.91 in a person, and only 0.85 in the person. The parent is the smallest ancestor
[choice; equal areas: the first], and the forest of parents is what is written.

HASSOD (Cao et al., NeurIPS 2023), by the same first author, lets a part lie in its whole by exactly 0.9 too, and calls whatever is
below a part a subpart: its levels end at 2 [code]. Both are options.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.coverage import COVER
from ovskit.core.masks.forest import levels
from ovskit.core.masks.overlap import intersections
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import MaskSet, RunTable
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]

_ROWS = 1024  # masks compared with all larger ones at a time: bounds memory, whatever their number


def grow_forest(masks: MaskSet, cover: float = COVER, *, inclusive: bool = False, deepest: int | None = None) -> MaskSet:
    """``masks`` with ``parent_id``, None for a whole, and ``level`` in ``extra``: steps up to the whole, 0 for itself.

    Order and all else stay; earlier ``parent_id``, ``level`` are replaced. ``cover`` in (0, 1] is the paper's 0.9; with ``inclusive``,
    exactly this share is enough. Masks deeper than ``deepest`` get that level and keep their parents. Raises InputError if the masks differ
    in size from each other or from their image.
    """
    image = masks.image
    for mask in masks.masks:
        if (mask.rle.height, mask.rle.width) != (image.height, image.width):
            raise InputError(
                f"{image.file_name}: mask {mask.id} is {mask.rle.width}×{mask.rle.height}, its image {image.width}×{image.height}: "
                "masks of one image must have one size"
            )
    parent = parents(table_of(masks), cover, inclusive=inclusive)
    steps = levels(parent)
    level = (steps if deepest is None else np.minimum(steps, deepest)).tolist()
    ids = [mask.id for mask in masks.masks]
    grown = [
        replace(mask, parent_id=None if above < 0 else ids[above], extra={**mask.extra, "level": level[k]})
        for k, (mask, above) in enumerate(zip(masks.masks, parent.tolist(), strict=True))
    ]
    return replace(masks, masks=tuple(grown))


def parents(table: RunTable, cover: float = COVER, *, inclusive: bool = False) -> Int64:
    """The place of each mask's smallest ancestor, -1 where it has none: int64 (n,).

    Memory: eight bytes for each pair of 1,024 masks and all larger ones, whatever their number.
    """
    n = len(table)
    order = np.argsort(-table.areas, kind="stable")
    rank = np.full(n, -1, np.int64)
    areas = table.areas[order]
    for first in range(0, n, _ROWS):
        last = min(first + _ROWS, n)
        if n <= _ROWS:
            shared = intersections(table, table)[order][:, order]
        else:
            shared = intersections(chosen(table, order[first:last]), chosen(table, order[:last]))
        _smallest_ancestors(shared, areas, first, cover, inclusive, rank)
    parent = np.full(n, -1, np.int64)
    parent[order] = np.where(rank < 0, -1, order[rank])
    return parent


@njit(nogil=True, cache=True)
def _smallest_ancestors(shared: Int64, areas: Int64, first: int, cover: float, inclusive: bool, rank: Int64) -> None:
    """``rank[i]`` becomes the place of i's smallest ancestor; ``areas`` descend, ``shared`` (rows, larger or equal ones)."""
    for row in range(shared.shape[0]):
        i = first + row
        if areas[i] == 0:
            continue
        # From the next larger one up: the first ancestor is the smallest. Equal areas are searched to their first mask.
        for j in range(min(i, shared.shape[1]) - 1, -1, -1):
            if rank[i] >= 0 and areas[j] > areas[rank[i]]:
                break
            inside = shared[row, j] / areas[i]
            if (inside > cover or (inclusive and inside == cover)) and shared[row, j] / areas[j] < cover:
                rank[i] = j
