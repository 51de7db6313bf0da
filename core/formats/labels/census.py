"""Counts of the ids in a folder of label maps, to notice maps that are read with the wrong meaning.

That 255 is void is only a custom. Black-and-white masks (ECSSD, DUTS, CUB, DAVIS) are stored as 0 and 255 as well; with their foreground
taken for void, every prediction would be right. So where the meaning of 255 is not stated, its share of the pixels is checked.
"""

from __future__ import annotations

import threading

import numpy as np

from ovskit.core.formats.labels.maps import LabelTruth
from ovskit.core.records import LabelMap
from ovskit.core.runtime.errors import InputError

NOTICEABLE = 0.1
"""Void beyond this share of all pixels is neither a thin border nor a few odd pixels: VOC has 0.05, COCO-Stuff 0.06 [choice]."""


class Census:
    """Counts the pixels of every id, void too, of the maps that are loaded through it. Any thread may load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pixels: dict[int, int] = {}

    def counted(self, maps: LabelTruth) -> LabelTruth:
        """The same maps; each is counted when it is loaded for the first time."""
        seen: set[int] = set()

        def load(k: int) -> LabelMap:
            found = maps.load(k)
            with self._lock:
                if k not in seen:
                    seen.add(k)
                    for number, count in zip(*np.unique(found.labels, return_counts=True), strict=True):
                        self._pixels[int(number)] = self._pixels.get(int(number), 0) + int(count)
            return found

        return maps.with_load(load)

    def check(self, what: str, *, binary: bool = False, option: str = "--layout", one_class: bool = True) -> None:
        """Raises InputError if the maps ``what``, as far as they are loaded, were probably read with the wrong meaning.

        That is so where void is a noticeable share, or more than all classes but the largest together; and where there is only one class,
        which every prediction gets right: always with ``one_class``, without it only beside void. ``option`` is the flag that states how
        maps are kept, ``binary`` whether they were read as black-and-white masks.
        """
        void, classes = self._pixels.get(-1, 0), {number: count for number, count in self._pixels.items() if number >= 0}
        if not classes:
            return  # reported by the metric
        if binary:
            if len(classes) == 1 and one_class:
                which = "is darker than 128" if 0 in classes else "is 128 or brighter"
                raise InputError(
                    f"{what}: every pixel {which}, so these are not black-and-white masks; if they hold 0 and 1, leave out {option}"
                )
            return
        total = void + sum(classes.values())
        others = total - void - max(classes.values())
        share = f"{100 * void / total:.1f}% of all pixels"
        advice = f"for black-and-white masks add {option} binary; if 255 is void, --void 255; if it is a class, --void none"
        if void > NOTICEABLE * total or void > others > 0:
            raise InputError(f"{what}: 255 is {share} and would count as void: {advice}")
        if len(classes) == 1 and (one_class or void):
            rest = f" beside void (255, {share})" if void else ""
            raise InputError(
                f"{what}: all pixels that count are of one class, {next(iter(classes))}{rest}, so every score would be 100 or 0: {advice}"
            )


def census_of(maps: LabelTruth, limit: int) -> Census:
    """A census of at most ``limit`` of the maps, evenly apart."""
    census = Census()
    counted = census.counted(maps)
    for k in np.unique(np.linspace(0, len(maps) - 1, min(limit, len(maps))).round().astype(int)).tolist():
        counted.load(k)
    return census
