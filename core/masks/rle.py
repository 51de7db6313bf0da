"""Run-length masks in COCO's format: check, encode, decode, measure and merge, on runs throughout.

Same results as pycocotools' ``mask`` module, with two differences: text is checked before it is used (pycocotools
trusts it and can read past its buffer), and what has no meaning is an ``InputError`` instead of a silent -1 or an
empty mask. A dense mask is made by ``decode`` only.

Runs are column-major and alternate background, foreground, background …; the first may be 0. They are *canonical*
when no other run is 0; every ``Rle`` made here is, so equal masks have equal ``counts``. Work on many masks of one image
begins with their table (``masks.runs``).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import intervals, kernels
from ovskit.core.masks.checks import MAX_PIXELS, ascii_of, fault_text, joined, malformed, total_of
from ovskit.core.records import Rle
from ovskit.core.runtime.errors import InputError

Lengths = npt.NDArray[np.uint32]


def validate(height: int, width: int, counts: bytes | str | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Rle:
    """Check a mask from outside and return it in canonical form.

    ``counts`` is COCO's compressed text (``bytes`` or ``str``) or uncompressed list of run lengths. Zero runs and padded
    numbers, which some tools write, are accepted and normalised. Raises ``InputError`` for sizes that are not positive
    integers or exceed 2³² − 1 pixels together, and for counts that are malformed, negative, or do not sum to
    ``height * width``.
    """
    total = total_of(height, width)
    height, width = int(height), int(width)
    if isinstance(counts, (bytes, str)):
        text = ascii_of(counts, height, width)
        parsed, canonical = _parse(text, height, width, total)
        return Rle(height, width, text if canonical else _text(parsed, total))
    return from_runs(height, width, counts)


def runs(rle: Rle) -> Lengths:
    """Canonical run lengths of a mask, uint32 (n,). Raises ``InputError`` if its text is malformed."""
    return _parse(rle.counts, rle.height, rle.width, total_of(rle.height, rle.width))[0]


def from_runs(height: int, width: int, runs: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Rle:
    """The mask with these run lengths, column-major, background first; zero runs are merged away.

    Raises ``InputError`` if they are not integers, one is negative, or they do not sum to ``height * width``.
    """
    total = total_of(height, width)
    values = runs if isinstance(runs, np.ndarray) else _integers(runs, height, width)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise malformed(height, width, "counts are neither text nor a list of integers")
    if values.dtype == np.uint64 and values.size and values.max() > MAX_PIXELS:
        raise malformed(height, width, "a run is longer than any mask")
    checked = np.empty(values.size, np.uint32)
    count, fault, at = kernels.check_runs(values.astype(np.int64, copy=False), total, checked)
    if fault != kernels.OK:
        raise malformed(height, width, fault_text(fault, at))
    return Rle(int(height), int(width), _text(checked[:count], total))


def encode(mask: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> Rle:
    """Encode a dense (h, w) bool or uint8 mask; every non-zero pixel is foreground.

    Row-major and column-major arrays are read in place, other strides are copied. Raises ``InputError`` if the array is
    not two-dimensional, is empty, or has another dtype.
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise InputError(f"a mask to encode must be a 2-D array of bool or uint8, not {mask.ndim}-D of {mask.dtype}: convert it first")
    height, width = mask.shape
    total = total_of(height, width)
    pixels = mask.view(np.uint8)
    in_columns = pixels.flags.f_contiguous
    if in_columns:
        pixels = pixels.T.reshape(-1)
    elif not pixels.flags.c_contiguous:
        pixels = np.ascontiguousarray(pixels)
    find = kernels.changes_in_columns if in_columns else kernels.changes_in_rows
    # Nearly every mask has fewer changes than this; the others are read twice.
    room = 8 * (height + width)
    changes = np.empty(room, np.int64)
    count = find(pixels, changes)
    if count > room:
        changes = np.empty(count, np.int64)
        find(pixels, changes)
    changes = changes[:count]
    return _from_changes(height, width, total, changes if in_columns else kernels.order_changes(changes, height, width))


def decode(rle: Rle) -> npt.NDArray[np.uint8]:
    """The dense mask: uint8 (h, w) of 0 and 1, column-major in memory. Raises ``InputError`` if its text is malformed."""
    checked = runs(rle)
    out = np.empty(rle.height * rle.width, np.uint8)
    kernels.fill(checked, out)
    return out.reshape(rle.width, rle.height).T


def area(rle: Rle) -> int:
    """Number of foreground pixels. Raises ``InputError`` if the mask's text is malformed."""
    return int(kernels.foreground(runs(rle)))


def bbox(rle: Rle) -> tuple[float, float, float, float]:
    """COCO's (x, y, width, height) in pixels around the foreground, zeros for an empty mask.

    Raises ``InputError`` if the mask's text is malformed.
    """
    box = np.empty(4)
    kernels.measure(runs(rle), rle.height, box)
    x, y, width, height = box.tolist()
    return x, y, width, height


def union(rles: Sequence[Rle]) -> Rle:
    """Pixels that are in any of the masks. Raises ``InputError`` for an empty list, and for masks of different sizes."""
    return _merge(rles, unite=True)


def intersection(rles: Sequence[Rle]) -> Rle:
    """Pixels that are in all of the masks. Raises ``InputError`` for an empty list, and for masks of different sizes."""
    return _merge(rles, unite=False)


def _integers(counts: Any, height: int, width: int) -> npt.NDArray[np.int64]:
    """A list as int64; unlike NumPy, ``array`` refuses what is not an integer, and it is faster."""
    if isinstance(counts, (list, tuple)):
        try:
            return np.array(array("q", counts), np.int64)
        except OverflowError as error:
            raise malformed(height, width, "a run is longer than any mask") from error
        except TypeError:
            pass
    raise malformed(height, width, "counts are neither text nor a list of integers")


def _parse(text: bytes, height: int, width: int, total: int) -> tuple[Lengths, bool]:
    out = np.empty(len(text), np.uint32)
    count, fault, at, canonical = kernels.parse_text(np.frombuffer(text, np.uint8), 0, len(text), total, out)
    if fault != kernels.OK:
        raise malformed(height, width, fault_text(fault, at))
    return out[:count], canonical


def _text(canonical: Lengths, total: int) -> bytes:
    out = np.empty(len(canonical) * kernels.characters_per_run(total), np.uint8)
    return out[: kernels.put_runs(canonical, out)].tobytes()


def _from_changes(height: int, width: int, total: int, changes: npt.NDArray[np.int64]) -> Rle:
    out = np.empty((len(changes) + 1) * kernels.characters_per_run(total), np.uint8)
    return Rle(height, width, out[: kernels.put_changes(changes, total, out)].tobytes())


def _merge(rles: Sequence[Rle], unite: bool) -> Rle:
    if not rles:
        raise InputError("no masks to merge: an empty list has no size, give at least one mask")
    height, width, text, bounds = joined(rles)
    total = total_of(height, width)
    changes, k, fault, at = intervals.merge(text, bounds, total, unite)
    if fault != kernels.OK:
        raise malformed(height, width, f"mask {k}: {fault_text(fault, at)}")
    return _from_changes(height, width, total, changes)
