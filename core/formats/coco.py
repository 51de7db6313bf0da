"""COCO annotations as ``Mask`` records, and whole COCO documents of every common shape.

Shapes: an instances document, a results list, SA-1B's per-image object, JSON Lines of annotations or of those
objects. Segmentations may be compressed or uncompressed RLE, or polygons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes, rle
from ovskit.core.formats.lvis import image_name
from ovskit.core.records import Image, Mask, MaskSet, Rle
from ovskit.core.runtime.errors import InputError

_OWN_KEYS = frozenset("id image_id file_name category_id segmentation area bbox iscrowd score parent_id".split())


def read_image(value: Any, what: str) -> Image:
    """An entry of a COCO file's ``images``. Raises InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{what}: an image must be a JSON object")
    number, name = value.get("id", value.get("image_id")), image_name(value)
    width, height = value.get("width"), value.get("height")
    if type(number) is not int or not isinstance(name, str) or not name:
        raise InputError(f"{what}: an image needs a whole id and a file_name")
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        raise InputError(f"{what}: image {number} needs a positive whole width and height")
    return Image(number, name, width, height)


def read_annotation(value: Any, what: str, size: tuple[int, int] | None = None) -> tuple[Mask, Image | None]:
    """An annotation, validated, and the image it names itself where it carries a ``file_name``.

    ``size`` (height, width) is needed for polygons and checked against an RLE's own. Area and box are computed from the
    mask, not believed; an ``area`` that differs, as polygons' do, is kept in ``extra`` under that name, since COCO's scores
    go by it. Raises InputError.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what}: an annotation must be a JSON object")
    image_id = value.get("image_id")
    number = value.get("id", 0)
    parent, category, crowd = value.get("parent_id"), value.get("category_id", 1), value.get("iscrowd", 0)
    if type(image_id) is not int or type(number) is not int:
        raise InputError(f"{what}: an annotation needs a whole id and image_id")
    if type(category) is not int or type(parent) not in (int, type(None)) or crowd not in (0, 1):
        raise InputError(f"{what}: category_id, parent_id and iscrowd must be whole numbers, iscrowd 0 or 1")
    mask_rle = _segmentation(value.get("segmentation"), what, size)
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
        image = Image(image_id, name, mask_rle.width, mask_rle.height)
    extra = {key: item for key, item in value.items() if key not in _OWN_KEYS}
    area, stated = rle.area(mask_rle), value.get("area")
    if isinstance(stated, int | float) and not isinstance(stated, bool) and math.isfinite(stated) and 0 <= stated != area:
        extra["area"] = float(stated)
    mask = Mask(
        id=number,
        image_id=image_id,
        rle=mask_rle,
        area=area,
        bbox=rle.bbox(mask_rle),
        category_id=category,
        iscrowd=int(crowd),
        score=score,
        parent_id=parent,
        extra=extra,
    )
    return mask, image


def _segmentation(value: Any, what: str, size: tuple[int, int] | None) -> Rle:
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
            return rle.validate(own[0], own[1], counts)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
    if isinstance(value, list):
        if size is None:
            raise InputError(f"{what}: polygons need the image's width and height, which this file does not give")
        return _polygons(value, what, size)
    raise InputError(f"{what}: a segmentation is an RLE or a list of polygons")


def _polygons(polygons: list[Any], what: str, size: tuple[int, int]) -> Rle:
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(f"{what}: a polygon is a list of at least three x, y pairs")
        # pycocotools walks the outline point by point: a far coordinate would keep it busy for ever.
        if not all(math.isfinite(v) and abs(v) <= 4 * max(size) for v in polygon):
            raise InputError(f"{what}: a polygon leaves its {size[1]}×{size[0]} image by far")
    if not polygons:
        raise InputError(f"{what}: a segmentation of no polygons")
    from pycocotools import mask as coco_mask

    height, width = size
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return rle.validate(height, width, merged["counts"])


def parse_document(first: bytes, stream: BinaryIO, what: str) -> list[Any]:
    """The JSON values of a document whose first line is ``first``: its lines, the members of its list, or its one object."""
    rest = stream.read()
    if rest.strip() and _is_json(first):
        lines = [first, *rest.splitlines()]
        return [jsonbytes.loads(line, f"{what}: line {k}") for k, line in enumerate(lines, 1) if line.strip()]
    value = jsonbytes.loads(first + rest, what)
    return value if isinstance(value, list) else [value]


def mask_sets(values: list[Any], what: str) -> Iterator[MaskSet]:
    """Masks by image from the values of a COCO document of any shape but the panoptic one. Raises InputError."""
    if is_panoptic(values):
        raise InputError(f"{what} is a panoptic file, whose masks are in PNG files beside it; give it to ovs-eval or ovs-show as --gt")
    if len(values) == 1 and isinstance(values[0], dict) and "images" in values[0]:
        yield from _instances(values[0], what)
    elif all(isinstance(v, dict) and "image" in v and "annotations" in v for v in values) and values:
        for k, value in enumerate(values, 1):
            yield from per_image(value, what if len(values) == 1 else f"{what}: entry {k}")
    elif is_results(values):
        yield from _results(values, what)
    else:
        raise InputError(f"{what} is no COCO file: expected instances, a results list, SA-1B's per-image form or lines of those")


def categories(values: list[Any]) -> list[dict[str, Any]]:
    """The categories that a document's values list, as they are; none where there are none."""
    found = values[0].get("categories") if len(values) == 1 and isinstance(values[0], dict) else None
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []


def is_panoptic(values: list[Any]) -> bool:
    """Whether these are a COCO panoptic document's."""
    annotations = values[0].get("annotations") if len(values) == 1 and isinstance(values[0], dict) else None
    return isinstance(annotations, list) and bool(annotations) and isinstance(annotations[0], dict) and "segments_info" in annotations[0]


def is_results(values: list[Any]) -> bool:
    """Whether these are a results list's: annotations without a list of images."""
    return all(isinstance(v, dict) and "segmentation" in v for v in values)


def _is_json(line: bytes) -> bool:
    try:
        jsonbytes.loads(line, "")
    except InputError:
        return False
    return True


def _instances(document: dict[str, Any], what: str) -> Iterator[MaskSet]:
    images, annotations = document.get("images"), document.get("annotations", [])
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InputError(f'{what}: "images" and "annotations" must be lists')
    by_id = {}
    for k, entry in enumerate(images, 1):
        image = read_image(entry, f"{what}: image {k}")
        if image.id in by_id:
            raise InputError(f"{what}: two images have id {image.id}")
        by_id[image.id] = image
    yield from _group(annotations, by_id, what)


def per_image(value: dict[str, Any], what: str) -> Iterator[MaskSet]:
    """The masks of SA-1B's per-image object (``image`` and ``annotations``). Raises InputError."""
    image = read_image(value["image"], what)
    entries = value["annotations"]
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(f'{what}: "annotations" must be a list of objects')
    yield from _group([{**entry, "image_id": image.id} for entry in entries], {image.id: image}, what)


def _results(values: list[Any], what: str) -> Iterator[MaskSet]:
    by_id: dict[int, Image] = {}
    numbered = []
    for k, value in enumerate(values, 1):
        segmentation, number = value["segmentation"], value.get("image_id")
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and v > 0 for v in size) or type(number) is not int:
            raise InputError(f"{what}: result {k} needs an image_id and an RLE with its size")
        name = value.get("file_name")
        by_id.setdefault(number, Image(number, name if isinstance(name, str) else str(number), size[1], size[0]))
        numbered.append({**value, "id": k})
    yield from _group(numbered, by_id, what)


def _group(annotations: Iterable[Any], by_id: dict[int, Image], what: str) -> Iterator[MaskSet]:
    masks: dict[int, list[Mask]] = {number: [] for number in by_id}
    ids: set[int] = set()
    for k, value in enumerate(annotations, 1):
        number = value.get("image_id") if isinstance(value, dict) else None
        image = by_id.get(number) if type(number) is int else None
        if image is None:
            raise InputError(f"{what}: annotation {k} is of image {number!r}, which the file does not list")
        mask, _ = read_annotation(value, f"{what}: annotation {k}", (image.height, image.width))
        if mask.id in ids:
            raise InputError(f"{what}: two annotations have id {mask.id}")
        ids.add(mask.id)
        masks[image.id].append(mask)
    for number, image in by_id.items():
        yield mask_set(image, masks[number], what)


def mask_set(image: Image, masks: list[Mask], what: str) -> MaskSet:
    """``masks`` as the set of ``image``. Raises InputError if a parent is not among them, or a mask is its own ancestor."""
    parents = {mask.id: mask.parent_id for mask in masks}
    for mask in masks:
        if mask.parent_id is not None and mask.parent_id not in parents:
            raise InputError(f"{what}: annotation {mask.id} has parent_id {mask.parent_id}, which image {image.id} does not have")
    free: set[int] = set()  # masks known to have a way up to a root
    for number in parents:
        way: set[int] = set()
        above: int | None = number
        while above is not None and above not in free:
            if above in way:
                raise InputError(f"{what}: annotation {above} of image {image.id} is its own ancestor by parent_id")
            way.add(above)
            above = parents[above]
        free |= way
    return MaskSet(image, tuple(masks))
