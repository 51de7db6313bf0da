"""Whole COCO documents in every common shape: their masks, grouped by image.

Shapes: an instances document, a results list, SA-1B's per-image object, the list that SAM's own script writes for one image, JSON Lines
of annotations or of per-image objects.

Files of other tools are read as generously as is possible without guessing. Annotations with a box but no mask are left out and counted.
Image ids may be text, as in Cityscapes' panoptic files: such images are numbered in the order of the list. A file that gives its images
numbers and no names (a results list) is *nameless*, see ``names_images``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco.entries import has_mask, mask_set, read_annotation, read_image, whole_id
from ovskit.core.formats.coco.lvis import image_name
from ovskit.core.formats.image_names import without_suffix
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("formats")

Number = int | str  # as files give it: an image's id, which may be text
_WHOLE = frozenset("id image_id category_id width height iscrowd parent_id".split())


def parse_document(first: bytes, stream: BinaryIO, what: str) -> list[Any]:
    """The JSON values of a document whose first line is ``first``: its lines, the members of its list, or its one object."""
    rest = stream.read()
    if rest.strip() and _is_json(first):
        lines = [first, *rest.splitlines()]
        return [jsonbytes.loads(line, f"{what}: line {k}") for k, line in enumerate(lines, 1) if line.strip()]
    value = jsonbytes.loads(first + rest, what)
    return value if isinstance(value, list) else [value]


def mask_sets(values: list[Any], what: str, failures: Failures | None = None) -> Iterator[MaskSet]:
    """The masks of a COCO document's values, grouped by image; any shape but the panoptic one.

    A broken annotation goes to ``failures`` or, without ``failures``, raises InputError, as a broken document always does.
    """
    if is_panoptic(values):
        raise InputError(f"{what} is a panoptic file, whose masks are in PNG files beside it; give it to ovs-eval or ovs-show as --gt")
    if len(values) == 1 and isinstance(values[0], dict) and "images" in values[0]:
        yield from _instances(values[0], what, failures)
    elif all(isinstance(v, dict) and "image" in v and "annotations" in v for v in values) and values:
        for k, value in enumerate(values, 1):
            yield from per_image(value, what if len(values) == 1 else f"{what}: entry {k}", failures)
    elif is_of_one_image(values):
        yield from _of_one_image(values, what, failures)
    elif is_results(values):
        yield from _results(values, what, failures)
    else:
        raise InputError(f"{what} is not a COCO file: expected instances, a results list, SA-1B's per-image form or lines of those")


def categories(values: list[Any]) -> list[dict[str, Any]]:
    """The categories that a document lists, unchanged; an empty list where it lists no categories."""
    found = values[0].get("categories") if len(values) == 1 and isinstance(values[0], dict) else None
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []


def names_images(values: list[Any]) -> bool:
    """Whether a document names its images by more than numbers, as COCO's results lists do not. True for a document without images."""
    if len(values) == 1 and isinstance(values[0], dict) and isinstance(values[0].get("images"), list):
        listed = values[0]["images"]
        return not listed or any(isinstance(v, dict) and (image_name(v) is not None or isinstance(v.get("id"), str)) for v in listed)
    if not values or is_of_one_image(values) or not is_results(values):
        return True
    return any(image_name(v) is not None or isinstance(v.get("image_id"), str) for v in values)


def is_panoptic(values: list[Any]) -> bool:
    """Whether these are the values of a COCO panoptic document."""
    annotations = values[0].get("annotations") if len(values) == 1 and isinstance(values[0], dict) else None
    return isinstance(annotations, list) and bool(annotations) and isinstance(annotations[0], dict) and "segments_info" in annotations[0]


def is_results(values: list[Any]) -> bool:
    """Whether these are the values of a results list: annotations without a list of images."""
    return all(isinstance(v, dict) and ("segmentation" in v or ("image_id" in v and "bbox" in v)) for v in values)


def is_of_one_image(values: list[Any]) -> bool:
    """Whether these are the masks of one image, which no entry names, as SAM's ``amg.py`` and its mask generator give them."""
    return bool(values) and all(isinstance(v, dict) and "segmentation" in v and "image_id" not in v for v in values)


def image_numbers(entries: Sequence[Any], what: str) -> dict[Number, int]:
    """A whole number for every image of a document's list, by the id that the list gives it.

    Whole numbers stay as they are; if one id is text, images are numbered from 1 in the order of the list. Raises InputError for an id of
    another type, and for one that occurs twice.
    """
    found: dict[Number, int] = {}
    texts = any(isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries)
    for k, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise InputError(f"{what}: image {k} must be a JSON object")
        own = entry.get("id", entry.get("image_id"))
        if not isinstance(own, str) and not whole_id(own):
            raise InputError(f"{what}: image {k} needs an id, a whole number or text, not {str(own)[:40]!r}")
        if own in found:
            raise InputError(f"{what}: two images have id {own}")
        found[own] = k if texts or isinstance(own, str) else own
    return found


def whole_numbers(entry: Any) -> Any:
    """An entry of a document with numbers such as 12.0 made whole: tables with missing values hold all ids as floats."""
    if not isinstance(entry, dict) or not any(isinstance(entry.get(key), float) for key in _WHOLE):
        return entry
    return {key: int(v) if key in _WHOLE and isinstance(v, float) and v.is_integer() else v for key, v in entry.items()}


def listed_images(entries: Sequence[Any], what: str) -> dict[Number, Image]:
    """The images of a document's list by what the list calls them. Raises InputError."""
    entries = [whole_numbers(entry) for entry in entries]
    numbers = image_numbers(entries, what)
    nameless = bool(entries) and not any(image_name(entry) is not None or isinstance(entry.get("id"), str) for entry in entries)
    found = {}
    for k, (own, entry) in enumerate(zip(numbers, entries, strict=True), 1):
        named = {**entry, "file_name": own} if isinstance(own, str) and image_name(entry) is None else entry
        found[own] = read_image(named, f"{what}: image {k}", number=numbers[own], nameless=nameless)
    return found


def per_image(value: dict[str, Any], what: str, failures: Failures | None = None) -> Iterator[MaskSet]:
    """The masks of SA-1B's per-image object (``image`` and ``annotations``). Raises InputError."""
    image = read_image(value["image"], what)
    entries = value["annotations"]
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(f'{what}: "annotations" must be a list of objects')
    yield from _group([{**entry, "image_id": image.id} for entry in entries], {image.id: image}, what, failures, part=True)


def _is_json(line: bytes) -> bool:
    try:
        jsonbytes.loads(line, "")
    except InputError:
        return False
    return True


def _instances(document: dict[str, Any], what: str, failures: Failures | None) -> Iterator[MaskSet]:
    images, annotations = document.get("images"), document.get("annotations", [])
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InputError(f'{what}: "images" and "annotations" must be lists')
    annotations = _numbered([whole_numbers(value) for value in annotations], what)
    yield from _group(annotations, listed_images(images, what), what, failures)


def _numbered(annotations: list[Any], what: str) -> list[Any]:
    """Annotations with whole numbers as ids: their own, or from 1 in their order where no annotation has an id or some ids are text.

    Raises InputError if two have one text.
    """
    ids = [value.get("id") if isinstance(value, dict) else None for value in annotations]
    if all(own is None for own in ids):
        return [{**value, "id": k} if isinstance(value, dict) else value for k, value in enumerate(annotations, 1)]
    if not any(isinstance(own, str) for own in ids):
        return annotations
    places: dict[Number, int] = {}
    for k, own in enumerate(ids, 1):
        if isinstance(own, str) or type(own) is int:
            if own in places:
                raise InputError(f"{what}: two annotations have id {own}")
            places[own] = k

    def numbered(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        changed = {key: places.get(value[key], value[key]) for key in ("id", "parent_id") if isinstance(value.get(key), str | int)}
        return {**value, **changed}

    return [numbered(value) for value in annotations]


def _of_one_image(values: list[Any], what: str, failures: Failures | None) -> Iterator[MaskSet]:
    """SAM's list, in a file that is named like its image. The score is SAM's own estimate of a mask's IoU."""
    if what == "stdin":
        raise InputError(f"{what}: its masks have no image_id, and a pipe has no name that says which image they are of: name the file")
    name = without_suffix(what.rpartition("/")[2])
    found = [v["segmentation"].get("size") if isinstance(v["segmentation"], dict) else None for v in values if has_mask(v)]
    size = found[0] if found else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and v > 0 for v in size) or found.count(size) < len(found):
        raise InputError(f"{what}: masks without image_id must be RLEs of one size, as SAM's amg.py --convert-to-rle writes them")
    # Files of many images may be joined, so one image needs the same number wherever it turns up [choice].
    image = Image(1 + zlib.crc32(name.encode("utf-8", "surrogatepass")), name, size[1], size[0])
    numbered = []
    for k, value in enumerate(values, 1):
        score = {} if "score" in value or "predicted_iou" not in value else {"score": value["predicted_iou"]}
        numbered.append({**value, **score, "id": k, "image_id": image.id})
    yield from _group(numbered, {image.id: image}, what, failures)


def _results(values: list[Any], what: str, failures: Failures | None) -> Iterator[MaskSet]:
    by_id: dict[Number, Image] = {}
    numbered = []
    texts = any(isinstance(v.get("image_id"), str) for v in values)
    for k, value in enumerate(map(whole_numbers, values), 1):
        segmentation, own = value.get("segmentation"), value.get("image_id")
        if has_mask(value):
            size = segmentation.get("size") if isinstance(segmentation, dict) else None
            right = isinstance(size, list) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)
            if not right or not (whole_id(own) or isinstance(own, str)):
                raise InputError(f"{what}: result {k} needs an image_id and an RLE with its size")
            assert isinstance(size, list)
            assert isinstance(own, int | str)
            if own not in by_id:
                by_id[own] = Image(len(by_id) + 1 if texts else int(own), image_name(value) or str(own), size[1], size[0])
        numbered.append({**value, "id": k})
    yield from _group(numbered, by_id, what, failures)


def _group(
    annotations: Iterable[Any], images: dict[Number, Image], what: str, failures: Failures | None, *, part: bool = False
) -> Iterator[MaskSet]:
    """The annotations, grouped by image. A document without a single mask is refused, unless it is ``part`` of a larger set of files or
    lines."""
    masks: dict[int, list[Mask]] = {image.id: [] for image in images.values()}
    ids: set[int] = set()
    gone: set[str] = set()  # what is left out cannot be a parent
    boxes = 0
    for k, value in enumerate(annotations, 1):
        if isinstance(value, dict) and not has_mask(value):
            boxes += 1
            gone.add(str(value.get("id")))
            continue
        try:
            mask = _mask(value, images, f"{what}: annotation {k}")
            if mask.id in ids:
                raise InputError(f"{what}: two annotations have id {mask.id}")
        except InputError as error:
            if failures is None:
                raise
            failures.handle_again(error, "annotation")
            gone.add(str(value.get("id")) if isinstance(value, dict) else "")
            continue
        ids.add(mask.id)
        masks[mask.image_id].append(mask)
    if boxes and not ids and not part:
        raise InputError(f"{what}: none of its {boxes} annotations has a mask, only a box at most: there is nothing to work on")
    if boxes:
        said = "1 annotation without a mask (a box alone, or less than three points) is" if boxes == 1 else ""
        log.warning("%s: %s left out", what, said or f"{boxes} annotations without masks (boxes alone, or less than three points) are")
    gone -= set(map(str, ids))
    for image in images.values():
        kept = [replace(m, parent_id=None) if str(m.parent_id) in gone else m for m in masks[image.id]]
        yield mask_set(image, kept, what)


def _mask(value: Any, images: dict[Number, Image], what: str) -> Mask:
    own = value.get("image_id") if isinstance(value, dict) else None
    image = images.get(own) if isinstance(own, str) or type(own) is int else None
    if image is None:
        raise InputError(f"{what} is of image {own!r}, which the file does not list")
    return read_annotation({**value, "image_id": image.id}, what, (image.height, image.width))[0]
