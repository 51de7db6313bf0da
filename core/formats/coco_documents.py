"""Whole COCO documents of every common shape, and which images their masks are of.

Shapes: an instances document, a results list, SA-1B's per-image object, JSON Lines of annotations or of those objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco import mask_set, read_annotation, read_image
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError


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
