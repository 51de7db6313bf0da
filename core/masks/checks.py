"""What a mask from outside must pass before anything works on it: its size, its text's characters, and the words for what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import kernels
from ovskit.core.records import Rle
from ovskit.core.runtime.errors import InputError

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


def total_of(height: int, width: int) -> int:
    """How many pixels a mask has. Raises ``InputError`` for a size that is not two positive integers, or more than 2³² − 1 pixels."""
    if not (type(height) is type(width) is int and height > 0 < width):
        for size in (height, width):
            if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) or size < 1:
                raise InputError(f"a mask's size must be two positive integers, not height {height!r} and width {width!r}")
    total = int(height) * int(width)
    if total > MAX_PIXELS:
        raise InputError(f"a mask of {width}x{height} pixels is larger than the format allows (2^32 - 1 pixels)")
    return total


def fault_text(fault: int, at: int) -> str:
    """What a kernel's ``fault`` at character or run ``at`` means."""
    return _FAULTS[fault].format(at=at)


def malformed(height: int, width: int, what: str) -> InputError:
    """The error to raise for a mask of this size that is wrong as ``what`` says."""
    return InputError(f"malformed run-length mask of {width}x{height} pixels: {what}; write it again with the tool that made it")


def ascii_of(counts: bytes | str, height: int, width: int) -> bytes:
    """Run-length text as bytes. Raises ``InputError`` for a character that is not ASCII."""
    if isinstance(counts, bytes):
        return counts
    try:
        return counts.encode("ascii")
    except UnicodeEncodeError as error:
        raise malformed(height, width, fault_text(kernels.BAD_CHARACTER, error.start)) from error


def one_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that all masks of an image have. Raises ``InputError`` if two differ."""
    first = sizes[0]
    for k, size in enumerate(sizes):
        if size != first:
            raise InputError(
                f"masks of one image must have one size, but mask 0 is {first[1]}x{first[0]} and mask {k} is "
                f"{size[1]}x{size[0]} pixels: check the image's size or the tool that wrote them"
            )
    return first


def joined(rles: Sequence[Rle]) -> tuple[int, int, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The masks' common height and width, their texts in one array, and the bounds (n + 1,) of each.

    Raises ``InputError`` if two sizes differ; the texts are as they were given.
    """
    height, width = one_size([(rle.height, rle.width) for rle in rles])
    bounds = np.array([0, *itertools.accumulate(len(rle.counts) for rle in rles)], np.int64)
    return height, width, np.frombuffer(b"".join([rle.counts for rle in rles]), np.uint8), bounds
