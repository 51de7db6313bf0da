"""Tables of runs: the masks of one image, unpacked once from their texts for all work on them.

A mask is read once. ``RunReader`` checks the texts of a file one by one as they come, and what it unpacks on the way is the
``MaskSet``'s table; ``table_of`` takes it from there. Texts that we wrote ourselves become a table all at once (``run_table``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import intervals, kernels, rle
from ovskit.core.masks.checks import ascii_of, fault_text, joined, malformed, one_size, total_of
from ovskit.core.records import MaskSet, Rle, RunTable

Counts = bytes | str | Sequence[int] | npt.NDArray[np.integer[Any]]

_ROOM = 1 << 10  # intervals that a reader has room for in the beginning
_ROWS = 1 << 6  # and masks


class Measured(NamedTuple):
    """A mask that was checked, with its area in pixels and COCO's box (x, y, width, height)."""

    rle: Rle
    area: int
    bbox: tuple[float, float, float, float]


def run_table(rles: Sequence[Rle]) -> RunTable:
    """The table of some masks, in their order. Raises ``InputError`` if two sizes differ or a mask's text is malformed."""
    n = len(rles)
    if not n:
        nothing = np.zeros(0, np.int64)
        return RunTable(0, 0, nothing, nothing, np.zeros(1, np.int64), nothing, np.zeros((0, 4), np.float64))
    height, width, text, bounds = joined(rles)
    total = total_of(height, width)
    # At least one character to a run, and every second run is foreground.
    starts, ends = np.empty(len(text) // 2, np.int64), np.empty(len(text) // 2, np.int64)
    offsets, areas, boxes = np.zeros(n + 1, np.int64), np.zeros(n, np.int64), np.zeros((n, 4), np.float64)
    k, fault, at = intervals.parse_table(text, bounds, height, total, starts, ends, offsets, areas, boxes)
    if fault != kernels.OK:
        raise malformed(height, width, f"mask {k}: {fault_text(fault, at)}")
    return RunTable(height, width, starts[: offsets[n]], ends[: offsets[n]], offsets, areas, boxes)


def table_of(masks: MaskSet) -> RunTable:
    """The table of an image's masks: the set's own, or made now of their texts. Raises as ``run_table`` does."""
    return run_table([mask.rle for mask in masks.masks]) if masks.runs is None else masks.runs


def chosen(table: RunTable, which: Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> RunTable:
    """Some of the masks of ``table``, in the order of the places ``which`` (m,); or those where ``which`` (n,) bool is true."""
    places = np.asarray(which)
    places = np.flatnonzero(places) if places.dtype == np.bool_ else places.astype(np.int64)
    if len(places) == len(table) and (places == np.arange(len(table))).all():
        return table
    lengths = table.offsets[places + 1] - table.offsets[places]
    offsets = np.zeros(len(places) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    at = np.arange(offsets[-1]) + np.repeat(table.offsets[places] - offsets[:-1], lengths)
    return RunTable(table.height, table.width, table.starts[at], table.ends[at], offsets, table.areas[places], table.bboxes[places])


class RunReader:
    """Masks from outside, one after the other, checked and unpacked in one pass; then a table of them.

    For one thread at a time.
    """

    __slots__ = ("_areas", "_boxes", "_ends", "_offsets", "_sizes", "_starts")

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []
        self._starts, self._ends = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int64)
        self._offsets, self._areas, self._boxes = np.zeros(_ROWS + 1, np.int64), np.empty(_ROWS, np.int64), np.empty((_ROWS, 4))

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, height: int, width: int, counts: Counts) -> Measured:
        """Take in a mask. What is accepted, and raised, is what ``rle.validate`` says; of a mask that is refused nothing stays."""
        total = total_of(height, width)
        height, width = int(height), int(width)
        text = ascii_of(counts, height, width) if isinstance(counts, (bytes, str)) else rle.from_runs(height, width, counts).counts
        row = len(self._sizes)
        self._make_room(row, len(text) // 2)
        fault, at, canonical = intervals.add_mask(
            np.frombuffer(text, np.uint8), height, total, row, self._starts, self._ends, self._offsets, self._areas, self._boxes
        )
        if fault != kernels.OK:
            raise malformed(height, width, fault_text(fault, at))
        if not canonical:
            text = rle.validate(height, width, text).counts
        self._sizes.append((height, width))
        x, y, wide, high = self._boxes[row].tolist()
        return Measured(Rle(height, width, text), int(self._areas[row]), (x, y, wide, high))

    def take(self, count: int) -> RunTable:
        """The first ``count`` masks as a table; those behind them stay. Raises ``InputError`` if two sizes differ."""
        if not count:
            return run_table([])
        height, width = one_size(self._sizes[:count])
        left, last, end = len(self._sizes) - count, self._offsets[count], self._offsets[len(self._sizes)]
        found = RunTable(
            height, width, self._starts[:last].copy(), self._ends[:last].copy(),
            self._offsets[: count + 1].copy(), self._areas[:count].copy(), self._boxes[:count].copy(),
        )  # fmt: skip
        for array in (self._starts, self._ends):
            array[: end - last] = array[last:end].copy()
        self._offsets[: left + 1] = self._offsets[count : count + left + 1] - last
        for rows in (self._areas, self._boxes):
            rows[:left] = rows[count : count + left].copy()
        del self._sizes[:count]
        return found

    def _make_room(self, row: int, intervals: int) -> None:
        needed = int(self._offsets[row]) + intervals
        if needed > len(self._starts):
            self._starts, self._ends = _longer(self._starts, needed), _longer(self._ends, needed)
        if row == len(self._areas):
            self._areas, self._boxes = _longer(self._areas, row + 1), _longer(self._boxes, row + 1)
            self._offsets = np.concatenate([self._offsets, np.zeros(len(self._areas) + 1 - len(self._offsets), np.int64)])


def _longer(array: npt.NDArray[Any], needed: int) -> npt.NDArray[Any]:
    """``array`` with room for at least ``needed`` rows, and for twice as many as it had."""
    out = np.empty((max(needed, 2 * len(array)), *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def measure(height: int, width: int, counts: Counts) -> Measured:
    """One mask from outside, checked, with its area and box. Raises as ``rle.validate`` does."""
    return RunReader().add(height, width, counts)
