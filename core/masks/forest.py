"""Forests of masks: who is below whom, how deep, and what becomes of those below a mask that is dropped.

In arrays a forest is every mask's parent by its place, int64 (n,), below 0 at roots. Masks say it by ids, ``Mask.parent_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.runs import chosen
from ovskit.core.records import Int64, Mask, MaskSet
from ovskit.core.runtime.kernels import njit

Bools = npt.NDArray[np.bool_]

LOST = -2
"""The place of a parent that is not there."""


def parent_places(masks: Sequence[Mask]) -> Int64:
    """The place of each mask's parent among ``masks``: int64 (n,), -1 at roots, ``LOST`` where it is not among them."""
    places = {mask.id: k for k, mask in enumerate(masks)}
    return np.array([-1 if mask.parent_id is None else places.get(mask.parent_id, LOST) for mask in masks], np.int64)


def levels(parent: Int64) -> Int64:
    """Steps from each mask up to its root: int64 (n,). In a cycle, counting ends at a mask that was passed already."""
    out = np.zeros(len(parent), np.int64)
    _climb(parent, out)
    return out


def cycle(parent: Int64) -> int:
    """The place of a mask that is its own ancestor, -1 in a forest: the first that comes up twice on the way up from the first mask that
    leads into a cycle."""
    return int(_come_round(parent))


def pruned_parents(parent: Int64, kept: Bools) -> Int64:
    """The parents of the masks that are ``kept`` (n,), each below its nearest kept ancestor: int64 (m,), places among the kept, -1 at
    roots.

    ``parent`` has no cycle.
    """
    above = _nearest(parent, kept)[kept]
    place = np.cumsum(kept) - 1
    return np.where(above < 0, -1, place[above])


def kept_masks(masks: MaskSet, kept: Bools) -> MaskSet:
    """The masks that are ``kept`` (n,), in order, each below its nearest kept ancestor; ``level``, where masks have one, is computed
    anew."""
    if kept.all():
        return masks
    parent = pruned_parents(parent_places(masks.masks), kept)
    left = [masks.masks[k] for k in np.flatnonzero(kept).tolist()]
    found = [
        replace(
            mask,
            parent_id=None if above < 0 else left[above].id,
            extra={**mask.extra, "level": level} if "level" in mask.extra else mask.extra,
        )
        for mask, above, level in zip(left, parent.tolist(), levels(parent).tolist(), strict=True)
    ]
    return MaskSet(masks.image, tuple(found), None if masks.runs is None else chosen(masks.runs, kept))


@njit(nogil=True, cache=True)
def _climb(parent: Int64, out: Int64) -> None:
    passed = np.zeros(len(parent), np.int64)  # the walk that came by last, from 1
    for i in range(len(parent)):
        passed[i] = i + 1
        j = parent[i]
        while j >= 0 and passed[j] != i + 1:
            passed[j] = i + 1
            out[i] += 1
            j = parent[j]


@njit(nogil=True, cache=True)
def _come_round(parent: Int64) -> int:
    settled = np.zeros(len(parent), np.int64)  # the walk that came by first, from 1
    for i in range(len(parent)):
        j = i
        while j >= 0 and settled[j] == 0:
            settled[j] = i + 1
            j = parent[j]
        if j >= 0 and settled[j] == i + 1:
            return j
    return -1


@njit(nogil=True, cache=True)
def _nearest(parent: Int64, kept: Bools) -> Int64:
    """The place of every mask's nearest kept ancestor, below 0 without one."""
    out = parent.copy()
    for i in range(len(parent)):
        while out[i] >= 0 and not kept[out[i]]:
            out[i] = parent[out[i]]
    return out
