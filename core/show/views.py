"""Which masks to look at together: the levels of granularity that a pool of masks holds.

A pool mixes regions of many sizes; drawn all at once it is a mess. Its annotations say where each region comes from,
and that gives *views*: what stands side by side at one threshold, or at one depth of a forest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ovskit.core.masks import forest
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import Mask, MaskSet, RunTable
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.kernels import njit

# Keys whose larger values are finer partitions of one merge sequence; the others, level and depth, are looked up exactly.
NESTED = ("threshold", "count")
KEYS = (*NESTED, "level", "depth")

_LEGIBLE = 16  # masks that one look takes in
_MOST_VALUES = 32  # a key with more values than this tells single masks apart, not levels


@dataclass(frozen=True, slots=True)
class MaskView:
    """Masks shown together: ``key`` (``threshold``, ``count``, ``level`` or ``depth``), its ``value``, and positions.

    ``members`` index the masks in the order given to ``views``.
    """

    key: str
    value: float
    members: tuple[int, ...]


def larger_first(masks: MaskSet) -> tuple[Mask, ...]:
    """The masks by descending area, equal ones in the order of the stream: the order in which they are painted."""
    return tuple(masks.masks[k] for k in order_by_area(masks))


def order_by_area(masks: MaskSet) -> list[int]:
    """The places of the masks in the order of ``larger_first``."""
    return sorted(range(len(masks.masks)), key=lambda k: -masks.masks[k].area)


def runs_in_order(masks: MaskSet, order: Sequence[int]) -> RunTable:
    """The runs of the masks at the places ``order``. Raises InputError if a mask has not the size of its image."""
    image = masks.image
    table = chosen(table_of(masks), order)
    if len(table) and (table.height, table.width) != (image.height, image.width):
        raise InputError(f"{image.file_name!r} is {image.width}×{image.height}, its masks are {table.width}×{table.height}")
    return table


def views(ordered: Sequence[Mask], table: RunTable) -> list[MaskView]:
    """The views of one image's masks (``larger_first``), finer before coarser, parents before parts.

    ``threshold`` and ``count``: a region is recorded once, at the finest partition that has it, and stands until it is
    merged into another. So the view of θ takes the regions recorded at θ or above, larger first, and leaves out those that
    larger ones cover by half or more. ``level`` (as given) and ``depth`` (steps to the root along ``parent_id``) take
    exactly the masks that have the value; where both say the same of every mask there is only ``depth``. A key without
    two values, or with more than 32, gives no views.
    """
    found = []
    for key in NESTED:
        values = np.array([_number(mask.extra.get(key)) for mask in ordered])
        found += [
            MaskView(key, value, tuple(np.flatnonzero(_standing(values >= value, table)).tolist())) for value in reversed(_levels(values))
        ]
    given, depths = [_number(mask.extra.get("level")) for mask in ordered], _depths(ordered)
    for key, numbers in (("depth", depths),) if given == depths else (("level", given), ("depth", depths)):
        values = np.array(numbers)
        found += [MaskView(key, value, tuple(np.flatnonzero(values == value).tolist())) for value in _levels(values)]
    return found


def view_of(masks: MaskSet, key: str, value: float) -> MaskSet:
    """The masks that a view shows, larger first; for nested keys, of the finest partition recorded at or above ``value``.

    ``level`` is ``depth`` in an image none of whose masks says its level.
    """
    order = order_by_area(masks)
    ordered = [masks.masks[k] for k in order]
    values = np.array([_number(mask.extra.get(key)) for mask in ordered])
    if key == "depth" or (key == "level" and np.isnan(values).all()):
        values = np.array(_depths(ordered))
    if key in NESTED:
        shown = _standing(values >= value, runs_in_order(masks, order))
    else:
        shown = values == value
    return _subset(masks, np.array(order, np.int64)[shown])


def legible_view(masks: MaskSet) -> MaskSet:
    """The masks to draw where no view is chosen: the view that has nearest to 16 of them, or all where they are few."""
    order = order_by_area(masks)
    ordered = [masks.masks[k] for k in order]
    candidates = [(view.key, view.value, len(view.members)) for view in views(ordered, runs_in_order(masks, order))]
    choice = most_legible(candidates, len(ordered))
    return _subset(masks, order) if choice is None else view_of(masks, *choice)


def _subset(masks: MaskSet, places: Sequence[int] | np.ndarray) -> MaskSet:
    """The masks at some places, in that order, with their runs where they are at hand."""
    runs = None if masks.runs is None else chosen(masks.runs, places)
    return MaskSet(masks.image, tuple(masks.masks[k] for k in places), runs)


def most_legible(candidates: Iterable[tuple[str, float, float]], everything: float) -> tuple[str, float] | None:
    """Key and value of the (key, value, number of masks) with nearest to 16 masks (by ratio); None if all are as few.

    Views of nested keys go first: they cover the image. What stands at one depth of a forest need not, and deep down it is all
    specks; of those only wholes and their parts are taken. 16 is a choice: enough to see structure, few enough to tell apart.
    """
    best, best_distance = None, math.inf
    if everything <= 1.5 * _LEGIBLE:
        return None
    candidates = list(candidates)
    nested = [candidate for candidate in candidates if candidate[0] in NESTED]
    for key, value, number in nested or [candidate for candidate in candidates if candidate[1] <= 1] or candidates:
        distance = abs(math.log(max(number, 0.5) / _LEGIBLE))
        if distance < best_distance:
            best, best_distance = (key, value), distance
    return best


def _levels(values: np.ndarray) -> list[float]:
    """Distinct values, ascending; empty unless there are 2 … 32."""
    distinct = np.unique(values[~np.isnan(values)])
    return distinct.tolist() if 2 <= len(distinct) <= _MOST_VALUES else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else math.nan


def _depths(masks: Sequence[Mask]) -> list[float]:
    """Steps to the root along ``parent_id``; a parent that is not there, or a cycle, ends the way."""
    return [float(level) for level in forest.levels(forest.parent_places(masks)).tolist()]


def _standing(eligible: np.ndarray, table: RunTable) -> np.ndarray:
    if not eligible.any():
        return np.zeros(len(eligible), np.bool_)
    covered = np.zeros(table.height * table.width, np.bool_)
    chosen: np.ndarray = _cover(eligible, table.offsets, table.starts, table.ends, table.areas, covered)
    return chosen


@njit(nogil=True, cache=True)
def _cover(
    eligible: np.ndarray, offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, areas: np.ndarray, covered: np.ndarray
) -> np.ndarray:
    chosen = np.zeros(len(eligible), np.bool_)
    for k in range(len(eligible)):
        if not eligible[k] or areas[k] == 0:
            continue
        common = 0
        for r in range(offsets[k], offsets[k + 1]):
            for p in range(starts[r], ends[r]):
                common += covered[p]
        if 2 * common < areas[k]:
            chosen[k] = True
            for r in range(offsets[k], offsets[k + 1]):
                covered[starts[r] : ends[r]] = True
    return chosen
