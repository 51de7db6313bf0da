"""What LVIS' files say that COCO's do not (Gupta, Dollár and Girshick, CVPR 2019, section 3).

Images are named by their address alone. No image was searched for all of the 1,203 categories: each lists those that it does not show
(``neg_category_ids``), and those that it shows but of which not every object has a mask (``not_exhaustive_category_ids``). For the other
categories it is not known whether the image shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ovskit.core.runtime.errors import InputError

_ABSENT, _PARTIAL = "neg_category_ids", "not_exhaustive_category_ids"


@dataclass(frozen=True, slots=True)
class Searched:
    """The categories that one image was searched for, besides those of its masks: ``absent`` are not there; of ``partial`` there may be
    more objects than masks. ``said``: whether the file lists them for this image."""

    absent: frozenset[int] = frozenset()
    partial: frozenset[int] = frozenset()
    said: bool = True


def image_name(entry: Mapping[str, Any]) -> str | None:
    """The name that an entry of a file's ``images`` gives its image; None for an entry without a name and an address.

    LVIS names its images by address only: the name is the last two parts of it, as in ``train2017/000000391895.jpg``.
    """
    name, address = entry.get("file_name"), entry.get("coco_url")
    if name is None and isinstance(address, str):
        name = "/".join(address.split("/")[-2:])
    return name if isinstance(name, str) and name else None


def searched_categories(values: list[Any], what: str) -> dict[int | str, Searched] | None:
    """What each image of a document was searched for, by the image's id there; None for documents that do not state it, all but LVIS'.

    Raises InputError for lists of anything but whole numbers.
    """
    images = values[0].get("images") if len(values) == 1 and isinstance(values[0], dict) else None
    if not isinstance(images, list) or not any(isinstance(one, dict) and _ABSENT in one for one in images):
        return None
    found: dict[int | str, Searched] = {}
    for one in images:
        number = one.get("id", one.get("image_id")) if isinstance(one, dict) else None
        if isinstance(number, int | str):
            found[number] = Searched(_ids(one, _ABSENT, number, what), _ids(one, _PARTIAL, number, what), _ABSENT in one)
    return found


def _ids(entry: Mapping[str, Any], key: str, image: int | str, what: str) -> frozenset[int]:
    found = entry.get(key, [])
    if not isinstance(found, list) or not all(type(number) is int for number in found):
        raise InputError(f"{what}: image {image}: {key} must be a list of whole numbers")
    return frozenset(found)


def frequencies(categories: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[int]]:
    """The ids of rare ("r": in fewer than 10 training images), common ("c") and frequent ("f": in 100 or more) categories; empty where no
    category states its frequency."""
    found: dict[str, set[int]] = {}
    for one in categories:
        if type(one.get("id")) is int and one.get("frequency") in ("r", "c", "f"):
            found.setdefault(one["frequency"], set()).add(one["id"])
    return {letter: frozenset(found.get(letter, ())) for letter in "rcf"} if found else {}
