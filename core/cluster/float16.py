"""float16 features as float32, at memory speed: NumPy converts one number at a time and would take as long as the merge."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.compiled import compiled
from ovskit.core.records import Float

# A float16's exponent and fraction, moved to a float32's places, lack this factor: the exponents' biases differ.
REBIAS = np.float32(2.0**112)
TOO_LARGE = np.float32(65536)  # what infinities and NaN come out as; no finite float16 reaches it

_CHUNK = 1 << 16  # numbers at a time: both passes over them stay in the second-level cache
_workspace = threading.local()


@compiled
def place_bits(bits: npt.NDArray[np.uint16], raw: npt.NDArray[np.uint32]) -> None:
    """float16 bits moved to where a float32 has them; ``rebias`` makes the values right."""
    for k in range(len(bits)):
        raw[k] = ((bits[k] & np.uint32(0x7FFF)) << np.uint32(13)) | ((bits[k] & np.uint32(0x8000)) << np.uint32(16))


@compiled
def rebias(values: Float) -> None:
    """The second half of ``place_bits``; infinities become NaN."""
    for k in range(len(values)):
        value = values[k] * REBIAS
        values[k] = value if abs(value) < TOO_LARGE else np.float32(np.nan)


def widened(patch: Float) -> npt.NDArray[np.float32]:
    """``patch`` (h, w, c), float16 or float32, as C-contiguous float32 in this thread's reused buffer.

    The result is the caller's until the next call in the same thread. Values are exact; infinities in float16 come out
    as NaN.
    """
    size = patch.size
    if getattr(_workspace, "buffer", None) is None or len(_workspace.buffer) < size:
        _workspace.buffer = np.empty(size, np.float32)
    out: npt.NDArray[np.float32] = _workspace.buffer[:size]
    if patch.dtype == np.float16:
        bits = np.ascontiguousarray(patch).reshape(-1).view(np.uint16)
        raw = out.view(np.uint32)
        for k in range(0, size, _CHUNK):
            place_bits(bits[k : k + _CHUNK], raw[k : k + _CHUNK])
            rebias(out[k : k + _CHUNK])
    else:
        np.copyto(out.reshape(patch.shape), patch)
    return out.reshape(patch.shape)
