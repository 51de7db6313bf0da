"""Where an unfinished masks stream can be taken up again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco import entries as coco
from ovskit.core.records import Image
from ovskit.core.runtime.errors import InputError, UsageError


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Everything before ``offset`` is whole: the annotations of ``images``; the next annotation gets ``next_id``."""

    offset: int
    images: tuple[Image, ...]
    next_id: int


def resume_point(file: BinaryIO, header_line: bytes, what: str, otherwise: Callable[[bytes], UsageError]) -> ResumePoint | None:
    """How far the stream in ``file`` got; None where it holds nothing to keep.

    The last image's annotations are given up, since nothing tells whether they are all there. Images without a mask
    leave no trace before the stream is finished and are simply done again. Raises what ``otherwise`` makes of the first line where
    the stream was begun with another header, that is with other inputs or options.
    """
    file.seek(0)
    first = file.readline()
    if not first.endswith(b"\n"):
        return None
    if first != header_line:
        raise otherwise(first)
    offset = start_of_last = len(first)
    images: list[Image] = []
    last_id = last_id_before = 0
    for line in file:
        if not line.rstrip().endswith(b"}") and not line.endswith(b"},\n"):
            break
        try:
            value = jsonbytes.loads(line.rstrip().rstrip(b","), what)
            mask, image = coco.read_annotation(value, what)
        except InputError:
            break
        if image is None:
            break
        if not images or image.id != images[-1].id:
            # The separator ",\n" before this line belongs to what is cut off with it.
            start_of_last = offset - 2 if images else offset
            last_id_before = last_id
            images.append(image)
        last_id = mask.id
        offset += len(line)
        if not line.endswith(b",\n"):
            break
    if len(images) < 2:
        return None
    return ResumePoint(start_of_last, tuple(images[:-1]), last_id_before + 1)
