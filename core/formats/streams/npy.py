"""Arrays as .npy, format 1.0: the members of a feature stream, from and to memory without a copy."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.errors import InputError

Buffer = bytes | bytearray | memoryview

_AGAIN = "run the stage that wrote it again"
_WANTED = "expected a feature stream, as ovs-extract writes it"

# numpy.lib.format can do this too; written and parsed here because the header then has the same bytes under every
# version of numpy, and no Python expression from outside is ever evaluated.

_DTYPES = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
_MAGIC = b"\x93NUMPY\1\0"
_ALIGN = 64
_HEADER = re.compile(
    rb"\{'descr': ('[^']{0,16}'|\[.*\]), 'fortran_order': (True|False), 'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?,?)\), \} *\n", re.ASCII
)
_MAX_DIMS = 32


def npy_chunks(array: npt.NDArray[Any]) -> tuple[bytes, memoryview]:
    """The .npy file of ``array`` in two buffers: header, and the array's own memory (copied only if not C-ordered).

    Raises ``ValueError`` for a dtype other than plain little-endian floats and integers of up to 8 bytes.
    """
    descr = array.dtype.str
    if descr not in _DTYPES:
        raise ValueError(f"not a dtype of the feature stream: {array.dtype}")
    shape = ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "")
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"
    length = len(_MAGIC) + 2 + len(text) + 1
    text += " " * (-length % _ALIGN) + "\n"
    flat = np.asarray(array, order="C").reshape(-1)
    return _MAGIC + struct.pack("<H", len(text)) + text.encode(), flat.view(np.uint8).data


def parse_header(view: memoryview, what: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Dtype and shape that the beginning of a .npy file of format 1.0 states, and the byte at which the data begin.

    Raises ``InputError``, naming ``what``, unless the dtype is plain (little-endian floats and integers of up to 8 bytes), the order C and
    the data aligned.
    """
    fixed = len(_MAGIC) + 2
    if bytes(view[: len(_MAGIC)]) != _MAGIC or len(view) < fixed:
        raise InputError(f"{what} is not a .npy array of format 1.0; {_WANTED}")
    start = fixed + int.from_bytes(view[len(_MAGIC) : fixed], "little")
    match = _HEADER.fullmatch(view[fixed:start])
    if match is None or start % _ALIGN:
        raise InputError(f"{what} has a .npy header that numpy does not write; {_AGAIN}")
    descr, order, dims = match[1].decode(errors="replace").strip("'"), match[2], match[3]
    if descr not in _DTYPES:
        raise InputError(f"{what} has dtype {descr[:40]!r}, want one of {' '.join(_DTYPES)} (objects are never unpickled); {_AGAIN}")
    if order == b"True":
        raise InputError(f"{what} is in Fortran order, want C order; {_AGAIN}")
    return np.dtype(descr), tuple(int(dim) for dim in dims.split(b",") if dim.strip()), start


def parse_npy(buffer: Buffer, what: str) -> npt.NDArray[Any]:
    """View ``buffer``, a whole .npy file of format 1.0, as its array; writable if the buffer is. Nothing is unpickled.

    Raises ``InputError`` as ``parse_header``, and unless the shape is exactly as large as the bytes.
    """
    view = memoryview(buffer).cast("B")
    dtype, shape, start = parse_header(view, what)
    body = view[start:]
    # Empty dimensions may sit beside huge ones: numpy counts those as overflow, so we do as well.
    if len(shape) > _MAX_DIMS or math.prod(max(dim, 1) for dim in shape) * dtype.itemsize >= 1 << 62:
        raise InputError(f"{what} has an impossible shape: {len(shape)} dimensions, too many or too large; {_AGAIN}")
    if math.prod(shape) * dtype.itemsize != len(body):
        raise InputError(f"{what} has {len(body)} bytes of data where shape {shape} of {dtype.str} wants another number; {_AGAIN}")
    return np.frombuffer(body, dtype).reshape(shape)
