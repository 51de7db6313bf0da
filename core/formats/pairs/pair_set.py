"""Image-text pairs of many tars and lists as one sorted sequence, of which little is in memory at a time."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

import numpy as np

from ovskit.core.formats.pairs.inputs import find_inputs, open_list
from ovskit.core.formats.pairs.listing import Listing
from ovskit.core.formats.pairs.record import Pair, to_bytes, to_text
from ovskit.core.formats.pairs.sidecar import Sidecars
from ovskit.core.formats.pairs.unit import NothingOpened, Opened, TarUnit, Unit
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import common_folder
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.shard import Shard

log = get_logger("pairs")

_CHUNK = 1024  # pairs that are read at a time
_SLASH = ord("/")
_WHOLE = Shard()


class PairSet:
    """The image-text pairs that ``inputs`` (files, globs, folders) name, ascending by key.

    A *unit* is a tar, or a file that lists images and captions. At most ``open_units`` units' indices and files are in memory at a time;
    of lists, the index is kept. Indices of tars are kept in ``index_folder`` (default: ``$XDG_CACHE_HOME/ovskit/pairs`` or
    ``~/.cache/ovskit/pairs``), so that each tar is walked through once.

    ``root``: what names are relative to, and where the images of lists are; by default the deepest folder that holds all inputs, where a
    tar counts as one. ``columns``: of TSV and CSV, see ``tables.Table``.
    ``need_images``: whether pairs of lists whose image is not there are left out; without, lists are believed, which is enough for those
    who have embeddings. Tables name images by URLs or by rows, so theirs must be there.

    A unit that cannot be used goes to ``failures``, and none of its pairs is used. Pairs without an image or a caption that can be used
    are left out, see ``left_out``; how many is logged once, after the first ``read``, ``count`` or ``names`` that came to its end. One
    thread at a time may call.

    Raises MissingInputError for inputs that are not there, InputError for one that is named twice, UsageError for one of another kind,
    or where ``root`` does not hold one.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        root: str | None = None,
        columns: str = "auto",
        failures: Failures,
        open_units: int = 8,
        index_folder: str | None = None,
        need_images: bool = True,
    ) -> None:
        self._failures, self._need_images = failures, need_images
        self._limit = max(1, open_units)
        self._open: OrderedDict[int, Opened] = OrderedDict()
        self._left_out: dict[int, Counter[str]] = {}
        self._failed: set[int] = set()
        self._said = self._twins_checked = False
        self._units, self.root = self._find(inputs, root, columns, Sidecars(index_folder))
        self.units: tuple[str, ...] = tuple(unit.path for unit in self._units)
        self._by_prefix: dict[bytes, list[int]] = {}
        for k, unit in enumerate(self._units):
            self._by_prefix.setdefault(unit.prefix, []).append(k)

    @property
    def left_out(self) -> dict[str, int]:
        """How many were left out of the units that were looked into so far, by reason."""
        return {str(reason): number for reason, number in sum(self._left_out.values(), Counter()).items()}

    def counts(self) -> tuple[int, ...]:
        """How many pairs each unit has; reads the indices one at a time."""
        found = tuple(len(self._opened(k).keys) for k in range(len(self._units)))
        self._say_left_out()
        return found

    def count(self) -> int:
        """How many pairs there are; reads the indices one at a time."""
        return sum(self.counts())

    def read(self, shard: Shard = _WHOLE) -> Iterator[Pair]:
        """The pairs of a shard, ascending by the bytes of their keys.

        Shard I/N has units[I::N] if there are at least N units, else the I-th of every N pairs of each unit: together the shards
        have every pair once. Raises InputError where two units have pairs of one key.
        """
        if shard.count > 1:
            self._refuse_twins()
        by_unit = shard.count <= len(self._units)
        chosen = range(len(self._units))[shard.index :: shard.count] if by_unit else range(len(self._units))
        first, step = (0, 1) if by_unit else (shard.index, shard.count)
        for _, pair in self._merged(chosen, first, step, captions=True):
            assert pair is not None
            yield pair
        self._say_left_out()

    def names(self) -> Iterator[str]:
        """All keys, ascending. Raises as ``read``."""
        for key, _ in self._merged(range(len(self._units)), 0, 1, captions=False):
            yield to_text(key)
        self._say_left_out()

    def find(self, keys: Sequence[str]) -> Iterator[Pair | None]:
        """The pairs of ``keys`` in the order given, None for a key that has none. All are read before the first is given, unit by unit
        and each from front to back. Raises InputError where two units have a pair of one of these keys."""
        wanted: dict[int, list[tuple[int, bytes]]] = {}
        for place, key in enumerate(keys):
            if (data := to_bytes(key)) is not None:
                for k in self._may_have(data):
                    wanted.setdefault(k, []).append((place, data))
        found: list[Pair | None] = [None] * len(keys)
        holders: dict[int, int] = {}
        for k, asked in sorted(wanted.items(), key=lambda item: (item[0] not in self._open, item[0])):
            opened, start = self._opened(k), len(self._units[k].prefix)
            rows = [(row, place) for place, key in asked if (row := opened.keys.find(key[start:])) >= 0]
            pairs = opened.pairs(np.array([row for row, _ in rows], np.int64)) if rows else []
            for (_, place), pair in zip(rows, pairs, strict=True):
                if place in holders:
                    raise self._twins(holders[place], k, pair.key)
                holders[place] = k
                found[place] = pair
        yield from found

    def at(self, places: Sequence[tuple[int, int]]) -> list[Pair]:
        """The pairs at ``places``, which are units and places in these, as ``order.PairOrder`` gives them; in that order."""
        found: dict[tuple[int, int], Pair] = {}
        by_unit: dict[int, list[int]] = {}
        for k, row in dict.fromkeys(places):
            by_unit.setdefault(k, []).append(row)
        for k, rows in sorted(by_unit.items(), key=lambda item: (item[0] not in self._open, item[0])):
            pairs = self._opened(k).pairs(np.array(rows, np.int64))
            found.update(((k, row), pair) for row, pair in zip(rows, pairs, strict=True))
        return [found[place] for place in places]

    def __enter__(self) -> PairSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files. They are opened again when they are needed."""
        while self._open:
            self._open.popitem()[1].close()

    def _find(self, inputs: Sequence[str], root: str | None, columns: str, sidecars: Sidecars) -> tuple[list[Unit], str]:
        found = find_inputs(inputs)
        paths, lists = [path for path, _ in found], {}
        for path in paths:
            if path.endswith(".tar"):
                continue
            listing = open_list(path, columns)
            listing.need_images = self._need_images
            try:
                listing.choose_base(root)
            except (InputError, MissingInputError) as error:
                self._failures.handle_again(error, listing.kind)
            else:
                lists[path] = listing
        if root is not None:
            base = os.path.normpath(root)
        else:
            bases = [
                (lists[path].base if path in lists else os.path.dirname(path) or ".") if holder is None else holder
                for path, holder in found
            ]
            base = common_folder(bases)
        units: list[Unit] = []
        for path in paths:
            if path.endswith(".tar"):
                name = os.path.relpath(path, base)
                if name.startswith(os.pardir + os.sep):
                    raise UsageError(f"--root {show_path(base)} does not hold {show_path(path)}")
                units.append(TarUnit(path, name, base, sidecars))
        units += [listing for listing in lists.values() if self._index(listing, base)]
        return sorted(units, key=lambda unit: (unit.bounds.lower, os.fsencode(unit.path))), base

    def _index(self, listing: Listing, base: str) -> bool:
        try:
            listing.index(base)
        except (InputError, MissingInputError) as error:
            self._failures.handle_again(error, listing.kind)
            return False
        return True

    def _opened(self, k: int) -> Opened:
        """Unit k's index and file; the one that was used longest ago is closed for it."""
        found = self._open.get(k)
        if found is not None:
            self._open.move_to_end(k)
            return found
        if k in self._failed:
            return NothingOpened()
        while len(self._open) >= self._limit:
            self._open.popitem(last=False)[1].close()
        try:
            found = self._units[k].open()
        except (InputError, MissingInputError) as error:
            self._failures.handle_again(error, self._units[k].kind)
            self._failed.add(k)
            return NothingOpened()
        self._left_out[k] = Counter(found.left_out)
        self._open[k] = found
        return found

    def _may_have(self, key: bytes) -> Iterator[int]:
        """The units that a key can be of."""
        ends = [0, *(k + 1 for k, byte in enumerate(key) if byte == _SLASH)]
        for end in ends:
            for k in self._by_prefix.get(key[:end], ()):
                lower, upper = self._units[k].bounds
                if lower <= key and (upper is None or key < upper):
                    yield k

    def _merged(self, chosen: Sequence[int], first: int, step: int, *, captions: bool) -> Iterator[tuple[bytes, Pair | None]]:
        """Keys and pairs of the ``chosen`` units, ascending, of each those from ``first`` on by ``step``.

        A unit is opened when its turn has come, so the usual tars, one of which ends before the next begins, are read one at a time.
        """
        waiting = list(reversed(chosen))  # ascending by their lower bounds, as all units
        heap: list[tuple[bytes, int, Pair | None, Iterator[tuple[bytes, Pair | None]]]] = []
        before, holder = None, -1
        while heap or waiting:
            while waiting and (not heap or self._units[waiting[-1]].bounds.lower <= heap[0][0]):
                k = waiting.pop()
                rows = self._rows(k, first, step, captions=captions)
                if (head := next(rows, None)) is not None:
                    heappush(heap, (head[0], k, head[1], rows))
            if not heap:
                break
            key, k, pair, rows = heap[0]
            if key == before:
                raise self._twins(holder, k, to_text(key))
            before, holder = key, k
            yield key, pair
            if (head := next(rows, None)) is None:
                heappop(heap)
            else:
                heapreplace(heap, (head[0], k, head[1], rows))

    def _rows(self, k: int, first: int, step: int, *, captions: bool) -> Iterator[tuple[bytes, Pair | None]]:
        """Keys and pairs of one unit. Its index is asked for again for every chunk, since others may have taken its place."""
        prefix, at = self._units[k].prefix, first
        while at < len(keys := self._opened(k).keys):
            rows = range(at, len(keys), step)[:_CHUNK]
            found: Sequence[Pair | None] = self._opened(k).pairs(np.array(rows, np.int64)) if captions else [None] * len(rows)
            names = [prefix + keys[row] for row in rows]
            del keys
            yield from zip(names, found, strict=True)
            at = rows[-1] + step

    def _refuse_twins(self) -> None:
        """Raises InputError if two units have pairs of one key. Only those whose keys can be equal are looked into, once."""
        if self._twins_checked:
            return
        together: list[int] = []
        reach: bytes | None = b""
        for k, unit in enumerate(self._units):
            if together and reach is not None and unit.bounds.lower >= reach:
                self._merge_names(together)
                together, reach = [], b""
            together.append(k)
            upper = unit.bounds.upper
            reach = None if reach is None or upper is None else max(reach, upper)
        self._merge_names(together)
        self._twins_checked = True

    def _merge_names(self, together: Sequence[int]) -> None:
        if len(together) > 1:
            for _ in self._merged(together, 0, 1, captions=False):
                pass

    def _twins(self, first: int, second: int, key: str) -> InputError:
        one, other = (show_path(self._units[k].path) for k in (first, second))
        return InputError(f"{one} and {other} both have a pair with the key {show_path(key)}; name only one of them, or move one elsewhere")

    def _say_left_out(self) -> None:
        if self._said:
            return
        self._said = True
        if found := self.left_out:
            said = ", ".join(f"{reason} ({number})" for reason, number in sorted(found.items()))
            log.warning("left out: %s", said)
