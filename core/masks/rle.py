"""Run-length masks in COCO's format: check, encode, decode, measure, merge and compare, on runs throughout.

Same results as pycocotools' ``mask`` module, with two differences: text is checked before it is used (pycocotools
trusts it and can read past its buffer), and what has no meaning is an ``InputError`` instead of a silent -1 or an
empty mask. A dense mask is made by ``decode`` only.

Runs are column-major and alternate background, foreground, background …; the first may be 0. They are *canonical*
when no other run is 0; every ``Rle`` made here is, so equal masks have equal ``counts``. ``RunTable`` holds many masks
of one image for pairwise work.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import intervals, kernels
from ovskit.core.records import Rle
from ovskit.core.runtime.errors import InputError

Runs = npt.NDArray[np.uint32]

# Pixel counts are unsigned 32-bit in every reader of the format.
MAX_PIXELS = 2**32 - 1

_FAULTS = {
    kernels.TRUNCATED: "counts end inside a number, at character {at}",
    kernels.BAD_CHARACTER: "character {at} of counts is not one of the format's ('0' to 'o')",
    kernels.NUMBER_TOO_LONG: "the number at character {at} of counts is too large",
    kernels.NEGATIVE: "the run at position {at} of counts is negative",
    kernels.TOO_MANY_PIXELS: "the runs cover more pixels than the mask has, from position {at} of counts",
    kernels.TOO_FEW_PIXELS: "the runs cover fewer pixels than the mask has",
}


def validate(height: int, width: int, counts: bytes | str | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Rle:
    """Check a mask from outside and return it in canonical form.

    ``counts`` is COCO's compressed text (``bytes`` or ``str``) or uncompressed list of run lengths. Zero runs and padded
    numbers, which some tools write, are accepted and normalised. Raises ``InputError`` for sizes that are not positive
    integers or exceed 2³² − 1 pixels together, and for counts that are malformed, negative, or do not sum to
    ``height * width``.
    """
    total = _total(height, width)
    height, width = int(height), int(width)
    if isinstance(counts, (bytes, str)):
        text = _ascii(counts, height, width)
        parsed, canonical = _parse(text, height, width, total)
        return Rle(height, width, text if canonical else _text(parsed, total))
    return from_runs(height, width, counts)


def runs(rle: Rle) -> Runs:
    """Canonical run lengths of a mask, uint32 (n,). Raises ``InputError`` if its text is malformed."""
    return _parse(rle.counts, rle.height, rle.width, _total(rle.height, rle.width))[0]


def from_runs(height: int, width: int, runs: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Rle:
    """The mask with these run lengths, column-major, background first; zero runs are merged away.

    Raises ``InputError`` if they are not integers, one is negative, or they do not sum to ``height * width``.
    """
    total = _total(height, width)
    values = runs if isinstance(runs, np.ndarray) else _integers(runs, height, width)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise _error(height, width, "counts are neither text nor a list of integers")
    if values.dtype == np.uint64 and values.size and values.max() > MAX_PIXELS:
        raise _error(height, width, "a run is longer than any mask")
    checked = np.empty(values.size, np.uint32)
    count, fault, at = kernels.check_runs(values.astype(np.int64, copy=False), total, checked)
    if fault != kernels.OK:
        raise _error(height, width, _FAULTS[fault].format(at=at))
    return Rle(int(height), int(width), _text(checked[:count], total))


def encode(mask: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> Rle:
    """Encode a dense (h, w) bool or uint8 mask; every non-zero pixel is foreground.

    Row-major and column-major arrays are read in place, other strides are copied. Raises ``InputError`` if the array is
    not two-dimensional, is empty, or has another dtype.
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise InputError(f"a mask to encode must be a 2-D array of bool or uint8, not {mask.ndim}-D of {mask.dtype}: convert it first")
    height, width = mask.shape
    total = _total(height, width)
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
    """COCO's (x, y, width, height) in pixels around the foreground, zeros if there is none.

    Raises ``InputError`` if the mask's text is malformed.
    """
    box = np.empty(4)
    kernels.measure(runs(rle), rle.height, box)
    x, y, width, height = box.tolist()
    return x, y, width, height


def union(rles: Sequence[Rle]) -> Rle:
    """Pixels that are in any of the masks. Raises ``InputError`` if there is none, or their sizes differ."""
    return _merge(rles, unite=True)


def intersection(rles: Sequence[Rle]) -> Rle:
    """Pixels that are in all of the masks. Raises ``InputError`` if there is none, or their sizes differ."""
    return _merge(rles, unite=False)


class RunTable:
    """The masks of one image, unpacked once for work on many of them.

    ``height`` and ``width`` in pixels (0 for an empty table); foreground of mask k as ascending ``[start, end)`` of
    column-major pixel indices, ``starts[offsets[k]:offsets[k + 1]]`` and ``ends[…]``, int64; ``areas`` int64 (n,) in
    pixels; ``bboxes`` float64 (n, 4), COCO's (x, y, width, height). Raises ``InputError`` if two sizes differ or a
    mask's text is malformed. Not to be changed after it is made.
    """

    __slots__ = ("areas", "bboxes", "ends", "height", "offsets", "starts", "width")

    def __init__(self, rles: Sequence[Rle]) -> None:
        n = len(rles)
        self.height = self.width = 0
        text, bounds = np.empty(0, np.uint8), np.zeros(1, np.int64)
        if n:
            self.height, self.width, text, bounds = _pack(rles)
        total = _total(self.height, self.width) if n else 0
        # At least one character to a run, and every second run is foreground.
        starts = np.empty(len(text) // 2, np.int64)
        ends = np.empty(len(text) // 2, np.int64)
        self.offsets = np.zeros(n + 1, np.int64)
        self.areas = np.zeros(n, np.int64)
        self.bboxes = np.zeros((n, 4), np.float64)
        k, fault, at = intervals.parse_table(text, bounds, self.height, total, starts, ends, self.offsets, self.areas, self.bboxes)
        if fault != kernels.OK:
            raise _error(self.height, self.width, f"mask {k}: {_FAULTS[fault].format(at=at)}")
        self.starts = starts[: self.offsets[n]]
        self.ends = ends[: self.offsets[n]]

    def __len__(self) -> int:
        return len(self.areas)


def intersections(a: RunTable, b: RunTable) -> npt.NDArray[np.int64]:
    """Pixels shared by every mask of ``a`` (n) and every mask of ``b`` (m): int64 (n, m).

    Pairs whose boxes do not meet cost nothing; ``b is a`` costs half. Raises ``InputError`` if the tables' sizes differ.
    """
    check_sizes(a, b)
    out = np.zeros((len(a), len(b)), np.int64)
    intervals.pairwise(a.starts, a.ends, a.offsets, a.bboxes, b.starts, b.ends, b.offsets, b.bboxes, a.height, a is b, out)
    return out


def iou(a: RunTable, b: RunTable, iscrowd: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float64]:
    """Intersection over union of every mask of ``a`` (detections) and of ``b`` (ground truth): float64 (n, m) in [0, 1].

    Where ``iscrowd`` (m,) is non-zero the divisor is the detection's own area (COCO's rule for crowds: a detection inside
    the crowd matches it wholly). 0 where nothing is shared, also between empty masks. Some forty bytes of memory for each of
    the n × m pairs: ``rle_pairs.overlaps`` gives the same numbers for those that overlap alone. Raises ``InputError`` if the
    tables' sizes differ or ``iscrowd`` has not one entry for each mask of ``b``.
    """
    shared = intersections(a, b)
    whole = a.areas[:, None] + b.areas[None, :] - shared
    if iscrowd is not None:
        whole = np.where(check_crowd(iscrowd, b)[None, :], a.areas[:, None], whole)
    return np.divide(shared, whole, out=np.zeros(shared.shape), where=shared > 0)


def check_sizes(a: RunTable, b: RunTable) -> None:
    """Raises ``InputError`` if the masks of two tables differ in size."""
    if len(a) and len(b) and (a.height, a.width) != (b.height, b.width):
        raise InputError(
            f"masks to compare must have one size, but the first are {a.width}x{a.height} and the second "
            f"{b.width}x{b.height} pixels: check that both belong to the same image"
        )


def check_crowd(iscrowd: Sequence[int] | npt.NDArray[np.integer[Any]] | None, b: RunTable) -> npt.NDArray[np.bool_]:
    """Which masks of ``b`` are crowds, bool (m,); none if ``iscrowd`` is None. Raises ``InputError`` for another number of entries."""
    crowd = np.zeros(len(b), np.bool_) if iscrowd is None else np.asarray(iscrowd, dtype=bool)
    if crowd.shape != (len(b),):
        raise InputError(f"iscrowd needs one entry for each of the {len(b)} masks, but its shape is {crowd.shape}")
    return crowd


def coverage(a: RunTable, b: RunTable) -> npt.NDArray[np.float64]:
    """How much of mask i of ``a`` lies in mask j of ``b``, |i ∩ j| / |i| (SOHES §3.1): float64 (n, m) in [0, 1].

    0 where i is empty. Raises ``InputError`` if the tables' sizes differ.
    """
    shared = intersections(a, b)
    return np.divide(shared, a.areas[:, None], out=np.zeros(shared.shape), where=shared > 0)


def _total(height: int, width: int) -> int:
    if not (type(height) is type(width) is int and height > 0 < width):
        for size in (height, width):
            if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) or size < 1:
                raise InputError(f"a mask's size must be two positive integers, not height {height!r} and width {width!r}")
    total = int(height) * int(width)
    if total > MAX_PIXELS:
        raise InputError(f"a mask of {width}x{height} pixels is larger than the format allows (2^32 - 1 pixels)")
    return total


def _error(height: int, width: int, what: str) -> InputError:
    return InputError(f"malformed run-length mask of {width}x{height} pixels: {what}; write it again with the tool that made it")


def _ascii(counts: bytes | str, height: int, width: int) -> bytes:
    if isinstance(counts, bytes):
        return counts
    try:
        return counts.encode("ascii")
    except UnicodeEncodeError as error:
        raise _error(height, width, _FAULTS[kernels.BAD_CHARACTER].format(at=error.start)) from error


def _integers(counts: Any, height: int, width: int) -> npt.NDArray[np.int64]:
    """A list as int64; unlike NumPy, ``array`` refuses what is not an integer, and it is faster."""
    if isinstance(counts, (list, tuple)):
        try:
            return np.array(array("q", counts), np.int64)
        except OverflowError as error:
            raise _error(height, width, "a run is longer than any mask") from error
        except TypeError:
            pass
    raise _error(height, width, "counts are neither text nor a list of integers")


def _parse(text: bytes, height: int, width: int, total: int) -> tuple[Runs, bool]:
    out = np.empty(len(text), np.uint32)
    count, fault, at, canonical = kernels.parse_text(np.frombuffer(text, np.uint8), 0, len(text), total, out)
    if fault != kernels.OK:
        raise _error(height, width, _FAULTS[fault].format(at=at))
    return out[:count], canonical


def _text(canonical: Runs, total: int) -> bytes:
    out = np.empty(len(canonical) * kernels.characters_per_run(total), np.uint8)
    return out[: kernels.put_runs(canonical, out)].tobytes()


def _from_changes(height: int, width: int, total: int, changes: npt.NDArray[np.int64]) -> Rle:
    out = np.empty((len(changes) + 1) * kernels.characters_per_run(total), np.uint8)
    return Rle(height, width, out[: kernels.put_changes(changes, total, out)].tobytes())


def _pack(rles: Sequence[Rle]) -> tuple[int, int, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The masks' common height and width, their texts in one array, and the bounds (n + 1,) of each."""
    height, width = rles[0].height, rles[0].width
    for k, rle in enumerate(rles):
        if rle.height != height or rle.width != width:
            raise InputError(
                f"masks of one image must have one size, but mask 0 is {width}x{height} and mask {k} is "
                f"{rle.width}x{rle.height} pixels: check the image's size or the tool that wrote them"
            )
    bounds = np.array([0, *itertools.accumulate(len(rle.counts) for rle in rles)], np.int64)
    return height, width, np.frombuffer(b"".join([rle.counts for rle in rles]), np.uint8), bounds


def _merge(rles: Sequence[Rle], unite: bool) -> Rle:
    if not rles:
        raise InputError("no masks to merge: an empty list has no size, give at least one mask")
    height, width, text, bounds = _pack(rles)
    total = _total(height, width)
    changes, k, fault, at = intervals.merge(text, bounds, total, unite)
    if fault != kernels.OK:
        raise _error(height, width, f"mask {k}: {_FAULTS[fault].format(at=at)}")
    return _from_changes(height, width, total, changes)
