"""Values that people write in a compact form. Each parser raises ValueError, whose message says what to write instead."""

from __future__ import annotations

import math
import re
from itertools import pairwise


def thresholds(text: str) -> tuple[float, ...]:
    """``0.6..0.1`` (step 0.1), ``0.6..0.1:0.05`` or ``0.6,0.4,0.2``: descending cosines in [−1, 1].

    Steps are taken in decimal, so that 0.6..0.1 ends at exactly 0.1.
    """
    from decimal import Decimal, InvalidOperation  # which --help does without

    try:
        if ".." in text:
            match = re.fullmatch(r"([^:]+?)\.\.([^:.]*\.?[^:.]*)(?::(.+))?", text)
            if not match:
                raise InvalidOperation
            start, stop, step = Decimal(match[1]), Decimal(match[2]), Decimal(match[3] or "0.1")
            if not (start.is_finite() and stop.is_finite() and step.is_finite()):
                raise InvalidOperation
            if step <= 0:
                raise ValueError("the step must be positive")
            if start < stop:
                raise ValueError(f"thresholds must descend; write {stop}..{start} the other way round")
            count = int((start - stop) / step) + 1
            if count > 1000:
                raise ValueError(f"{count} thresholds are too many; take a larger step")
            values = [start - k * step for k in range(count)]
        else:
            values = [Decimal(word.strip()) for word in text.split(",")]
    except InvalidOperation:
        raise ValueError("write 0.6..0.1, 0.6..0.1:0.05 or 0.6,0.4,0.2") from None
    numbers = tuple(float(value) for value in values)
    if not all(math.isfinite(v) and -1 <= v <= 1 for v in numbers):
        raise ValueError("a threshold is a cosine, from -1 to 1")
    if any(a <= b for a, b in pairwise(numbers)):
        raise ValueError("thresholds must descend, each below the one before it")
    return numbers


def counts(text: str) -> tuple[int, ...]:
    """``400,280,200``: descending numbers of regions, each at least 1."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError("write positive whole numbers, such as 400,280,200,140,100")
    numbers = tuple(int(word) for word in words)
    if any(a <= b for a, b in pairwise(numbers)):
        raise ValueError("counts must descend, each below the one before it")
    return numbers


def grid(text: str) -> tuple[int, int]:
    """``28x28`` or ``28×28``: rows and columns, each at least 1."""
    match = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text.strip(), re.ASCII)
    if match is None or not int(match[1]) * int(match[2]):
        raise ValueError("write rows x columns of patches, such as 28x28")
    return int(match[1]), int(match[2])


def share(text: str) -> float:
    """``1/1024`` or ``0.001``, in [0, 1]: a share of an image."""
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(?:/\s*(\d*\.?\d+)\s*)?", text)
    value = math.nan
    if match and (match[2] is None or float(match[2]) > 0):
        value = float(match[1]) / float(match[2] or 1)
    if not 0 <= value <= 1:
        raise ValueError("give a share of the image from 0 to 1, such as 1/1024 or 0.001")
    return value


LARGEST_ID = 65535  # of a class: that of a 16-bit image


def void_ids(text: str) -> tuple[int, ...]:
    """``0,255``: different ids of a label map; ``none`` stands for no id."""
    if text == "none":
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) <= LARGEST_ID for word in words):
        raise ValueError(f"give ids from 0 to {LARGEST_ID} with commas between them, such as 255, or none")
    return tuple(dict.fromkeys(map(int, words)))


def numbers(text: str) -> tuple[float, ...]:
    """``1,1.5,2``: positive numbers."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < number < math.inf for number in found):
        raise ValueError("write positive numbers, such as 1 or 0.75,1,1.5")
    return found


def count_or_auto(text: str) -> int | None:
    """``8``, or ``auto``, which is None."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("give a positive number, or auto")
    return int(text)
