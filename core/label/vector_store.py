"""Vectors of any number of masks in bounded memory."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np

from ovskit.core.formats.streams.spool import Spool
from ovskit.core.records import Float

ADVICE = "free some space, or name another folder with TMPDIR"
_IN_MEMORY = 1 << 28  # bytes of vectors; more of them go to a temporary file


class VectorStore:
    """Rows of one length, collected one block after the other; from 256 MiB on in a temporary file that no kill leaves behind."""

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._limit = in_memory
        self._blocks: list[Float] = []
        self._bytes = 0
        self._width = 0
        self._spool: Spool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._spool is not None:
            self._spool.close()

    def append(self, rows: Float) -> None:
        """Add ``rows`` (n, c) float32; n may be 0. Raises OutputError where the temporary file cannot be written."""
        if not len(rows):
            return
        self._width = rows.shape[1]
        self._bytes += rows.nbytes
        if self._spool is None and self._bytes > self._limit:
            self._spool = Spool(advice=ADVICE)
            for block in self._blocks:
                self._spool.write(block.tobytes())
            self._blocks = []
        if self._spool is None:
            self._blocks.append(rows)
        else:
            self._spool.write(rows.tobytes())

    def rows(self) -> Float:
        """All of them, (n, c) float32, mapped from the file where they are in one; to be used before the store is closed."""
        if self._spool is not None:
            file: Any = self._spool.from_start()
            mapped: Float = np.memmap(file, np.float32, mode="r", shape=(self._bytes // 4 // self._width, self._width))
            return mapped
        if self._blocks:
            self._blocks = [np.concatenate(self._blocks)]
            return self._blocks[0]
        return np.empty((0, 0), np.float32)
