"""COCO's entries for images and annotations as records. Segmentations may be compressed or uncompressed RLE, or polygons."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from ovskit.core.formats.coco.lvis import image_name
from ovskit.core.masks import forest
from ovskit.core.masks.runs import Measured, RunReader
from ovskit.core.records import Image, Mask, MaskSet, RunTable
from ovskit.core.runtime.errors import InputError

_LONGEST_OUTLINE = 1 << 26  # in fifths of a pixel: half a gigabyte while it is drawn
_OWN_KEYS = frozenset("id image_id file_name exif_orientation category_id segmentation area bbox iscrowd score parent_id".split())


LARGEST = 1 << 62
"""Ids and ``area`` up to here are whole numbers that every JSON parser, NumPy and SQLite agree on."""


ORIENTATION = "exif_orientation"
"""The key of an image that was turned upright, see ``Image.orientation``; an image without this key was not turned."""


def orientation(value: Any) -> int:
    """The EXIF orientation that was undone when the image of this entry was opened, 1 to 8."""
    found = value.get(ORIENTATION) if isinstance(value, dict) else None
    return found if type(found) is int and 1 <= found <= 8 else 1


def whole_id(value: Any) -> TypeGuard[int]:
    """Whether this can be an id: any whole number that others can hold too."""
    return type(value) is int and -LARGEST <= value <= LARGEST


def read_image(value: Any, what: str, *, number: int | None = None, nameless: bool = False) -> Image:
    """An entry of a COCO file's ``images``.

    ``number`` is the id of an entry that has no whole number as its id; ``nameless``: no image of the file has a name, so its id stands for
    the name. Raises InputError.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what}: an image must be a JSON object")
    if number is None:
        number = value.get("id", value.get("image_id"))
    name = str(number) if nameless else image_name(value)
    width, height = value.get("width"), value.get("height")
    if not whole_id(number) or name is None:
        raise InputError(f"{what}: an image needs a whole id and a file_name")
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        raise InputError(f"{what}: image {number} needs a positive whole width and height")
    return Image(number, name, width, height, orientation(value))


def read_annotation(value: Any, what: str, size: tuple[int, int] | None = None, runs: RunReader | None = None) -> tuple[Mask, Image | None]:
    """An annotation, validated, and the image it names itself where it carries a ``file_name``.

    ``size`` (height, width) is needed for polygons and checked against an RLE's own. Area and box are computed from the
    mask, not believed; an ``area`` that differs, as polygons' do, is kept in ``extra`` under that name, since COCO's scores
    go by it. ``runs`` takes in the mask's runs, if given. Raises InputError; ``runs`` may then have the mask or not.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what}: an annotation must be a JSON object")
    image_id = value.get("image_id")
    number = value.get("id", 0)
    parent, category, crowd = value.get("parent_id"), value.get("category_id", 1), value.get("iscrowd", 0)
    if not whole_id(image_id) or not whole_id(number):
        raise InputError(f"{what}: an annotation needs a whole id and image_id")
    if type(category) is not int or type(parent) not in (int, type(None)) or crowd not in (0, 1):
        raise InputError(f"{what}: category_id, parent_id and iscrowd must be whole numbers, iscrowd 0 or 1")
    found = _segmentation(value.get("segmentation"), what, size, RunReader() if runs is None else runs)
    score = value.get("score")
    if score is not None:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{what}: score must be a finite number, not {score!r}")
        score = float(score)
    name = value.get("file_name")
    image = None
    if name is not None:
        if not isinstance(name, str) or not name:
            raise InputError(f"{what}: file_name must be text")
        image = Image(image_id, name, found.rle.width, found.rle.height, orientation(value))
    extra = {key: item for key, item in value.items() if key not in _OWN_KEYS}
    area, stated = found.area, value.get("area")
    if isinstance(stated, int | float) and not isinstance(stated, bool) and math.isfinite(stated) and 0 <= stated != area:
        extra["area"] = float(stated)
    mask = Mask(
        id=number,
        image_id=image_id,
        rle=found.rle,
        area=area,
        bbox=found.bbox,
        category_id=category,
        iscrowd=int(crowd),
        score=score,
        parent_id=parent,
        extra=extra,
    )
    return mask, image


def mask_set(image: Image, masks: list[Mask], what: str, runs: RunTable | None = None) -> MaskSet:
    """``masks`` as the set of ``image``, with their ``runs`` where they are at hand.

    Raises InputError if a parent is not among them, or a mask is its own ancestor.
    """
    parent = forest.parent_places(masks)
    for k in np.flatnonzero(parent == forest.LOST).tolist():
        raise InputError(f"{what}: annotation {masks[k].id} has parent_id {masks[k].parent_id}, which image {image.id} does not have")
    if (member := forest.cycle(parent)) >= 0:
        raise InputError(f"{what}: annotation {masks[member].id} of image {image.id} is its own ancestor by parent_id")
    return MaskSet(image, tuple(masks), runs)


def _segmentation(value: Any, what: str, size: tuple[int, int] | None, runs: RunReader) -> Measured:
    if isinstance(value, dict):
        own = value.get("size")
        if not isinstance(own, list) or len(own) != 2 or not all(type(v) is int for v in own):
            raise InputError(f'{what}: an RLE needs "size": [height, width]')
        if size is not None and tuple(own) != size:
            raise InputError(f"{what}: the mask is {own[1]}×{own[0]}, its image {size[1]}×{size[0]}")
        counts = value.get("counts")
        if not isinstance(counts, str | list):
            raise InputError(f'{what}: an RLE needs "counts", a string or a list of run lengths')
        try:
            return runs.add(own[0], own[1], counts)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
    if isinstance(value, list):
        if size is None:
            raise InputError(f"{what}: polygons need the image's width and height, which this file does not give")
        return _polygons(value, what, size, runs)
    raise InputError(f"{what}: a segmentation is an RLE or a list of polygons")


def has_mask(value: Any) -> bool:
    """Whether an annotation has a mask, and not just a box, points or a line.

    A ring of fewer than three points is a point or a line; an annotation with such rings alone has no mask. A malformed ``segmentation``
    counts as a mask, for ``read_annotation`` to refuse.
    """
    found = value.get("segmentation") if isinstance(value, dict) else None
    if isinstance(found, list):
        return bool(_rings(found))
    return found is not None and found != {} and found != ""


def _rings(polygons: list[Any]) -> list[Any]:
    """The polygons that enclose something, and entries that are not polygons, for ``_polygons`` to refuse."""
    return [ring for ring in polygons if not (isinstance(ring, list) and len(ring) < 6 and len(ring) % 2 == 0)]


def _fifths(polygon: list[Any]) -> float:
    """How many points pycocotools puts on an outline: five a pixel of each side's longer axis."""
    xs, ys = polygon[0::2], polygon[1::2]
    ends = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return 5.0 * sum(max(abs(c - a), abs(d - b)) + 1 for a, b, c, d in ends)


def _polygons(polygons: list[Any], what: str, size: tuple[int, int], runs: RunReader) -> Measured:
    polygons = _rings(polygons)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in polygon)
        if not numbers or len(polygon) % 2:
            raise InputError(f"{what}: a polygon is a list of x, y pairs")
        # pycocotools walks the outline point by point: a far coordinate would keep it busy for ever.
        if not all(math.isfinite(v) and abs(v) <= 4 * max(size) for v in polygon):
            raise InputError(f"{what}: a polygon leaves its {size[1]}×{size[0]} image by far")
    if not polygons:
        raise InputError(f"{what}: it has no polygon of three points or more")
    # In 32 bits it counts pixels, and the points of all outlines at a fifth of a pixel; beyond these it writes past its memory.
    height, width = size
    if height * width >= 1 << 32 or sum(map(_fifths, polygons)) >= _LONGEST_OUTLINE:
        raise InputError(f"{what}: polygons of a {width}×{height} image are too large to be drawn; give the mask as an RLE")
    from pycocotools import mask as coco_mask

    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return runs.add(height, width, merged["counts"])
