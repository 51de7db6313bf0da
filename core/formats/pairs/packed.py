"""Many short byte strings in two arrays, where a Python object for each would take several times the memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

_ROWS = 1 << 16
_WIDE = 1 << 30  # bytes that a table with all strings padded to the longest may have


class Packed(Sequence[bytes]):
    """Byte strings without NUL, one behind the other in ``blob``; string k is from ``starts[k]`` to ``starts[k + 1]``."""

    __slots__ = ("blob", "starts")

    def __init__(self, blob: bytes | bytearray, starts: Int64) -> None:
        self.blob = blob
        self.starts = starts

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Packed:
        """The strings of ``texts``, which may be more than fit into memory as objects."""
        blob, ends = bytearray(), array("q", [0])
        for text in texts:
            blob += text
            ends.append(len(blob))
        return cls(blob, np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, k: int) -> bytes:  # type: ignore[override]  # no slices
        return bytes(self.blob[self.starts[k] : self.starts[k + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return self.between(0, len(self))

    @property
    def lengths(self) -> Int64:
        """Bytes of each string: int64 (n,)."""
        return np.diff(self.starts)

    def between(self, first: int, last: int) -> Iterator[bytes]:
        """Strings ``first`` to ``last``, without the last."""
        places = self.starts[first : last + 1].tolist()
        for start, end in pairwise(places):
            yield bytes(self.blob[start:end])

    def take(self, places: Int64) -> Packed:
        """The strings at ``places``, int64 (m,), in that order."""
        parts = []
        data = np.frombuffer(self.blob, np.uint8)
        lengths = self.lengths[places]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        for k in range(0, len(places), _ROWS):
            some, here = lengths[k : k + _ROWS], starts[:-1][k : k + _ROWS]
            shift = np.repeat(self.starts[places[k : k + _ROWS]] - here, some)
            parts.append(data[np.arange(here[0], here[0] + len(shift)) + shift].tobytes())
        return Packed(b"".join(parts), starts)

    def order(self) -> Int64:
        """The places of the strings in ascending order, equal ones in the order in which they are: int64 (n,)."""
        if len(self) * int(self.lengths.max(initial=0)) > _WIDE:
            return np.array(sorted(range(len(self)), key=self.__getitem__), np.int64)
        return np.argsort(self._padded(0, len(self)), kind="stable").astype(np.int64, copy=False)

    def compared(self) -> npt.NDArray[np.int8]:
        """Each string but the last with the one after it, int8 (n − 1,): −1 where it is smaller, 0 where it is equal, 1 where greater."""
        found = np.zeros(max(0, len(self) - 1), np.int8)
        for k in range(0, len(found), _ROWS):
            rows = self._padded(k, min(len(self), k + _ROWS + 1))
            found[k : k + len(rows) - 1] = (rows[:-1] > rows[1:]).astype(np.int8) - (rows[:-1] < rows[1:])
        return found

    def find(self, text: bytes) -> int:
        """The place of ``text``, −1 if it is not there; the strings are ascending and none is twice."""
        place = bisect_left(self, text)
        return place if place < len(self) and self[place] == text else -1

    def _padded(self, first: int, last: int) -> npt.NDArray[np.bytes_]:
        """Strings ``first`` to ``last`` as an array of bytes of one width, which NumPy compares as Python does where there is no NUL."""
        lengths = self.lengths[first:last]
        width = max(1, int(lengths.max(initial=0)))
        rows = np.zeros((last - first, width), np.uint8)
        inside = np.arange(width) < lengths[:, None]
        rows[inside] = np.frombuffer(self.blob, np.uint8)[self.starts[first] : self.starts[last]]
        return rows.view(f"S{width}")[:, 0]
