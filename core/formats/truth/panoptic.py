"""COCO's panoptic format as instances: one PNG an image, whose colours are the segments' ids."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as Pillow

from ovskit.core.formats.coco import documents as coco_documents
from ovskit.core.formats.paths import show_path
from ovskit.core.masks.grid import edges, grid_rles
from ovskit.core.records import Image, Int32, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError


@dataclass(frozen=True, slots=True)
class PanopticImage:
    """One image of a panoptic file, its PNG not read yet; ``names`` are those of the file's categories by id."""

    image: Image
    png: str
    segments: Sequence[Any]
    names: Mapping[int, str] = field(default_factory=dict)


def panoptic_images(document: dict[str, Any], folder: str, what: str) -> list[PanopticImage]:
    """The images of a panoptic ``document`` whose PNG files are in ``folder``. Raises InputError."""
    images, annotations = document.get("images"), document["annotations"]
    if not isinstance(images, list):
        raise InputError(f'{what} lists no "images": it cannot say which images it is the ground truth of')
    by_id = coco_documents.listed_images(images, what)
    names = {c["id"]: str(c.get("name")) for c in coco_documents.categories([document]) if type(c.get("id")) is int}
    found = []
    for k, value in enumerate(annotations, 1):
        number = value.get("image_id") if isinstance(value, dict) else None
        image = by_id.pop(number, None) if isinstance(number, str) or type(number) is int else None
        segments, name = (value.get("segments_info"), value.get("file_name")) if image is not None else (None, None)
        if image is None or not isinstance(segments, list) or not isinstance(name, str):
            raise InputError(f"{what}: annotation {k} needs an image of the list, one each, a file_name and segments_info")
        if os.path.isabs(name) or ".." in name.split("/"):
            raise InputError(f"{what}: annotation {k} names a file outside of its folder: {name!r}")
        found.append(PanopticImage(image, os.path.join(folder, name), segments, names))
    return found + [PanopticImage(image, "", ()) for image in by_id.values()]


def panoptic_masks(entry: PanopticImage) -> MaskSet:
    """The segments of one image as masks; ids are the segments' own. Raises InputError, MissingInputError."""
    image = entry.image
    if not entry.segments:
        return MaskSet(image, ())
    labels = _labels(entry)
    ids = []
    for segment in entry.segments:
        if not isinstance(segment, dict) or type(segment.get("id")) is not int or not 0 < segment["id"] < 1 << 24:
            raise InputError(f"{entry.png}: a segment needs an id from 1 to 2^24 - 1")
        ids.append(segment["id"])
    if len(set(ids)) < len(ids):
        twice = next(number for k, number in enumerate(ids) if number in ids[:k])
        kinds = [_category(segment, entry.names) for segment, number in zip(entry.segments, ids, strict=True) if number == twice]
        raise InputError(
            f"{entry.png} ({show_path(image.file_name)}): {len(kinds)} segments have id {twice}, of the categories {', '.join(kinds)}: "
            "so its pixels cannot be told apart"
        )
    strangers = np.setdiff1d(labels, np.array([0, *ids]))
    if len(strangers):
        raise InputError(f"{entry.png}: the colour of id {strangers[0]} is in the picture, but not in segments_info")
    rows, cols = edges(image.height, 0, image.height, image.height), edges(image.width, 0, image.width, image.width)
    found = grid_rles(labels, np.array(ids), rows, cols, image.height, image.width)
    masks = []
    for k, segment in enumerate(entry.segments):
        if not found.areas[k]:
            raise InputError(f"{entry.png}: segment {ids[k]} has no pixel")
        category, crowd = segment.get("category_id", 1), segment.get("iscrowd", 0)
        if type(category) is not int or crowd not in (0, 1):
            raise InputError(f"{entry.png}: category_id and iscrowd of segment {ids[k]} must be whole numbers, iscrowd 0 or 1")
        box = tuple(found.bboxes[k].tolist())
        masks.append(Mask(ids[k], image.id, found.rles[k], int(found.areas[k]), box, category, int(crowd)))
    return MaskSet(image, tuple(masks))


def _category(segment: Any, names: Mapping[int, str]) -> str:
    number = segment.get("category_id")
    name = names.get(number) if type(number) is int else None
    return str(number) if name is None else f"{number} ({show_path(name)})"


def _labels(entry: PanopticImage) -> Int32:
    try:
        with open(entry.png, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: NUL, or a surrogate that is not a byte
        why = error.strerror if isinstance(error, OSError) else "not a possible file name"
        raise MissingInputError(
            f"cannot read {show_path(entry.png)}: {why}; panoptic ground truth needs its folder of PNG files (--segments DIR)"
        ) from None
    try:
        with Pillow.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode != "RGB" or picture.size != (entry.image.width, entry.image.height):
                size = f"{entry.image.width}×{entry.image.height}"
                raise InputError(f"{entry.png} is {picture.mode} {picture.width}×{picture.height}, not RGB of its image's {size}")
            rgb = np.asarray(picture).astype(np.int32)
    except InputError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers do
        raise InputError(f"{entry.png} is not a PNG that can be decoded: {error}") from None
    labels: Int32 = rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16
    return labels
