"""How much masks of one image overlap: shared pixels and intersection over union, on runs, with no dense mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import intervals
from ovskit.core.records import RunTable
from ovskit.core.runtime.errors import InputError


def intersections(a: RunTable, b: RunTable) -> npt.NDArray[np.int64]:
    """Pixels shared by every mask of ``a`` (n) and every mask of ``b`` (m): int64 (n, m).

    Pairs whose boxes do not meet cost nothing; ``b is a`` costs half. Raises ``InputError`` if the tables' sizes differ.
    """
    check_sizes(a, b)
    out = np.zeros((len(a), len(b)), np.int64)
    intervals.pairwise(a.starts, a.ends, a.offsets, a.bboxes, b.starts, b.ends, b.offsets, b.bboxes, a.height, a is b, out)
    return out


def iou(a: RunTable, b: RunTable, iscrowd: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float64]:
    """Intersection over union of every mask of ``a`` (detections) and of ``b`` (ground truth): float64 (n, m) in [0, 1].

    Where ``iscrowd`` (m,) is non-zero the divisor is the detection's own area (COCO's rule for crowds: a detection inside
    the crowd matches it wholly). 0 where nothing is shared, also between empty masks. Some forty bytes of memory for each of
    the n × m pairs: ``masks.pairs.overlaps`` gives the same numbers for those that overlap alone. Raises ``InputError`` if the
    tables' sizes differ or ``iscrowd`` has not one entry for each mask of ``b``.
    """
    shared = intersections(a, b)
    whole = a.areas[:, None] + b.areas[None, :] - shared
    if iscrowd is not None:
        whole = np.where(check_crowd(iscrowd, b)[None, :], a.areas[:, None], whole)
    return np.divide(shared, whole, out=np.zeros(shared.shape), where=shared > 0)


def iou_of_each(a: RunTable, b: RunTable) -> npt.NDArray[np.float64]:
    """Intersection over union of mask k of ``a`` and mask k of ``b``, for every k: float64 (n,) in [0, 1].

    As ``iou`` gives it; between two empty masks 0. Raises ``InputError`` if the tables' sizes differ, ``ValueError`` if one has more masks.
    """
    check_sizes(a, b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} masks and {len(b)} are not pairs")
    shared = np.zeros(len(a), np.int64)
    intervals.one_by_one(a.starts, a.ends, a.offsets, a.bboxes, b.starts, b.ends, b.offsets, b.bboxes, a.height, shared)
    return np.divide(shared, a.areas + b.areas - shared, out=np.zeros(len(a)), where=shared > 0)


def check_sizes(a: RunTable, b: RunTable) -> None:
    """Raises ``InputError`` if the masks of two tables differ in size."""
    if len(a) and len(b) and (a.height, a.width) != (b.height, b.width):
        raise InputError(
            f"masks to compare must have one size, but the first are {a.width}x{a.height} and the second "
            f"{b.width}x{b.height} pixels: check that both belong to the same image"
        )


def check_crowd(iscrowd: Sequence[int] | npt.NDArray[np.integer[Any]] | None, b: RunTable) -> npt.NDArray[np.bool_]:
    """Which masks of ``b`` are crowds, bool (m,); none if ``iscrowd`` is None. Raises ``InputError`` for another number of entries."""
    crowd = np.zeros(len(b), np.bool_) if iscrowd is None else np.asarray(iscrowd, dtype=bool)
    if crowd.shape != (len(b),):
        raise InputError(f"iscrowd needs one entry for each of the {len(b)} masks, but its shape is {crowd.shape}")
    return crowd
