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

    __slots__ = ("_areas", "_boxes", "_ends", "_found", "_sizes", "_spans")

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []
        self._ends: list[int] = []
        self._areas: list[int] = []
        self._boxes: list[tuple[float, float, float, float]] = []
        self._spans = np.empty((_ROOM, 2), np.int64)
        self._found = np.empty(9, np.int64)

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, height: int, width: int, counts: Counts) -> Measured:
        """Take in a mask. What is accepted, and raised, is what ``rle.validate`` says; nothing of a refused mask stays."""
        total = total_of(height, width)
        height, width = int(height), int(width)
        text = ascii_of(counts, height, width) if isinstance(counts, (bytes, str)) else rle.from_runs(height, width, counts).counts
        begin = self._ends[-1] if self._ends else 0
        # At least one character to a run, and every second run is foreground.
        if begin + len(text) // 2 > len(self._spans):
            longer = np.empty((max(begin + len(text) // 2, 2 * len(self._spans)), 2), np.int64)
            longer[:begin] = self._spans[:begin]
            self._spans = longer
        intervals.add_mask(np.frombuffer(text, np.uint8), height, total, begin, self._spans, self._found)
        fault, at, canonical, end, area, x, y, wide, high = self._found.tolist()
        if fault != kernels.OK:
            raise malformed(height, width, fault_text(fault, at))
        if not canonical:
            text = rle.validate(height, width, text).counts
        box = float(x), float(y), float(wide), float(high)
        self._sizes.append((height, width))
        self._ends.append(end)
        self._areas.append(area)
        self._boxes.append(box)
        return Measured(Rle(height, width, text), area, box)

    def take(self, count: int) -> RunTable:
        """The first ``count`` masks as a table; those behind them stay. Raises ``InputError`` if two sizes differ."""
        if not count:
            return run_table([])
        height, width = one_size(self._sizes[:count])
        last, end = self._ends[count - 1], self._ends[-1]
        found = RunTable(
            height, width, self._spans[:last, 0].copy(), self._spans[:last, 1].copy(), np.array([0, *self._ends[:count]], np.int64),
            np.array(self._areas[:count], np.int64), np.array(self._boxes[:count], np.float64),
        )  # fmt: skip
        self._spans[: end - last] = self._spans[last:end].copy()
        self._ends = [at - last for at in self._ends[count:]]
        for rows in (self._sizes, self._areas, self._boxes):
            del rows[:count]
        return found


def measure(height: int, width: int, counts: Counts) -> Measured:
    """One mask from outside, checked, with its area and box. Raises as ``rle.validate`` does."""
    return RunReader().add(height, width, counts)
