"""A one-dimensional .npy file written piece by piece, its length known only at the end."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

_HEADER = 128


class GrowingArray:
    """Appends to ``path``; once it is closed, ``numpy.load`` opens or maps it. What happens in between is OSError."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER))
        self.length = 0

    def append(self, values: npt.ArrayLike) -> None:
        """Add ``values`` (n,), converted to the array's dtype."""
        array = np.ascontiguousarray(values, self._dtype)
        self._file.write(array.tobytes())
        self.length += len(array)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()

    def _finish(self) -> None:
        self._file.seek(0)
        header: dict[str, Any] = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(self._file, header)
        if self._file.tell() != _HEADER:
            raise AssertionError("the header of a .npy file has another length than expected")
