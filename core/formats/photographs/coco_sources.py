"""The images that a COCO file lists, as images to read."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco.documents import image_numbers, whole_numbers
from ovskit.core.formats.coco.lvis import image_name
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import Source, Sources, locate, refuse_twins
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures


def sources_from_coco(path: str, *, root: str | None = None, failures: Failures | None = None) -> Sources:
    """The ``images`` of a COCO file, with its ids and names, found below ``root`` (default: the file's folder).

    Ids are whole numbers, or texts, which are numbered (``image_numbers``); LVIS names its images by address. Images in a damaged tar are
    left out if ``failures`` is given, which the tar then goes to. Raises MissingInputError if the file is not there or lists no image,
    InputError if it is broken, an image has no name, or two images share one.
    """
    what = show_path(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    document = jsonbytes.loads(jsonbytes.without_mark(data), what)
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise InputError(f'{what}: a COCO file has a list of "images"')
    if not images:
        raise MissingInputError(f'{what}: its list of "images" is empty')
    base = root if root is not None else os.path.dirname(path) or "."
    own = document["info"].get("ovskit") if isinstance(document.get("info"), dict) else None
    exif = str(own.get("exif", "apply")) if isinstance(own, dict) else "unknown"
    images = [whole_numbers(entry) for entry in images]
    items = []
    for (called, number), entry in zip(image_numbers(images, what).items(), images, strict=True):
        name = image_name(entry)
        if name is None:
            raise InputError(f"{what}: image {called} has no file_name (and no coco_url), so it cannot be found")
        try:
            found = locate(number, name, base)
        except InputError as error:
            if failures is None:
                raise
            failures.handle_again(error, "tar")
            continue
        items.append(Source(found.id, name, found.path, found.offset, found.length, _size(entry), exif))
    items.sort(key=lambda item: item.id)
    for before, after in pairwise(items):
        if before.id == after.id:
            raise InputError(f"{what}: two images have id {after.id}")
    refuse_twins(sorted(item.file_name for item in items))
    return Sources(base, tuple(items))


def _size(entry: dict[str, object]) -> tuple[int, int] | None:
    """The (width, height) that the file states, None where it states no valid size."""
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if type(width) is int and type(height) is int and width > 0 and height > 0 else None
