"""What two passes over masks need: the masks again, and a vector for each of them, in bounded memory."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.records import Float, MaskSet
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.output import write_error

_IN_MEMORY = 1 << 28  # bytes of vectors; more of them go to a temporary file
_ADVICE = "free some space, or name another folder with TMPDIR"


class TwiceReadMasks:
    """Masks files read two times; where one is a pipe, by way of a temporary file that no kill leaves behind.

    ``header`` is as ``MaskInputs`` has it; ``spooled`` says whether there is such a file. ``failures`` and what is raised as for
    ``MaskInputs``.
    """

    def __init__(self, paths: Sequence[str], failures: Failures | None = None) -> None:
        self._paths, self._failures = paths, failures
        self._inputs = MaskInputs(paths, failures)
        self.header = self._inputs.header
        self.spooled = not all(map(_is_regular, paths))
        self._spool: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inputs.__exit__(kind, error, trace)
        if self._spool is not None:
            self._spool.close()

    def first(self) -> Iterator[MaskSet]:
        """Every image's masks, to be read to the end."""
        if not self.spooled:
            yield from self._inputs.sets()
            return
        spool: Any = _temporary()
        self._spool = spool
        out: Any = _Spool(spool)
        writer = MasksWriter(out, MasksHeader())
        for masks in self._inputs.sets():
            writer.write(masks)
            yield masks
        writer.finish()
        out.flush()

    def second(self) -> Iterator[MaskSet]:
        """The same again; annotations may have other ids, but no other order."""
        if self._spool is not None:
            self._spool.seek(0)
            yield from open_masks(self._spool, "the copy of the masks in a temporary file")[1]
            return
        with MaskInputs(self._paths, self._failures) as again:
            yield from again.sets()


class VectorStore:
    """Rows of one length, collected one block after the other; from 256 MiB on in a temporary file that no kill leaves behind."""

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._limit = in_memory
        self._blocks: list[Float] = []
        self._bytes = 0
        self._width = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, rows: Float) -> None:
        """Add ``rows`` (n, c) float32; n may be 0."""
        if not len(rows):
            return
        self._width = rows.shape[1]
        self._bytes += rows.nbytes
        if self._file is None and self._bytes > self._limit:
            file: Any = _temporary()
            self._file = file
            for block in self._blocks:
                _Spool(file).write(block.tobytes())
            self._blocks = []
        if self._file is None:
            self._blocks.append(rows)
        else:
            _Spool(self._file).write(rows.tobytes())

    def rows(self) -> Float:
        """All of them, (n, c) float32, mapped from the file where they are in one; to be used before the store is closed."""
        if self._file is not None:
            _Spool(self._file).flush()
            file: Any = self._file
            mapped: Float = np.memmap(file, np.float32, mode="r", shape=(self._bytes // 4 // self._width, self._width))
            return mapped
        if self._blocks:
            self._blocks = [np.concatenate(self._blocks)]
            return self._blocks[0]
        return np.empty((0, 0), np.float32)


class _Spool:
    """A temporary file whose failed writes say what to do."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            raise write_error(f"a temporary file in {tempfile.gettempdir()}", error, _ADVICE) from None

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise write_error(f"a temporary file in {tempfile.gettempdir()}", error, _ADVICE) from None


def _temporary() -> Any:
    try:
        return tempfile.TemporaryFile(prefix="ovs-label-")
    except OSError as error:
        raise write_error("a temporary file", error, _ADVICE) from None


def _is_regular(path: str) -> bool:
    try:
        return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
