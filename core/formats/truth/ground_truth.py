"""Ground truth of a set of images, found again under the names that a masks stream gives them.

Read: COCO instances, LVIS, COCO panoptic (with its PNG files), SA-1B (one file, lines, or its folder of one JSON file an
image), and our own masks stream. A file is held in memory as run-length masks; for a folder and for PNG files only the list of images is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ovskit.core.formats.coco import documents as coco_documents
from ovskit.core.formats.coco import entries as coco
from ovskit.core.formats.coco.lvis import Searched, searched_categories
from ovskit.core.formats.image_names import By, ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams import masks
from ovskit.core.formats.truth.panoptic import panoptic_images, panoptic_masks
from ovskit.core.formats.walk import files_below
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.output import open_input


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """The image of the ground truth that another image is, and the comparison that found it.

    ``by`` is how names agree (see ``image_names``), or ``id`` where one side has no names.
    """

    index: int
    by: By | Literal["id"]


class TruthImages:
    """The images of a ground truth, ``images`` in order of id, to be found by what others call them; ``what`` names it in messages.

    ``plain_name`` makes two names comparable. ``named``: the images' names are more than their ids. ``exif`` says how EXIF orientations
    were taken where it was drawn (``formats.photographs``). Raises InputError if two images have one id or one name.
    """

    def __init__(
        self,
        what: str,
        images: Sequence[Image],
        plain_name: Callable[[str], str] | None = None,
        *,
        named: bool = True,
        exif: str = "unknown",
    ) -> None:
        self.what = what
        self.exif = exif
        self.named = named
        self.images = tuple(sorted(images, key=lambda image: image.id))
        self._plain_name = plain_name
        plain = self.images if plain_name is None else tuple(replace(image, file_name=plain_name(image.file_name)) for image in self.images)
        self._names = ImageNames(plain, what)
        self._by_id: dict[int, int] = {}
        for k, image in enumerate(self.images):
            if image.id in self._by_id:
                raise InputError(f"{what}: two images have id {image.id}")
            self._by_id[image.id] = k

    def __len__(self) -> int:
        return len(self.images)

    def plain_name(self, name: str) -> str:
        """The form in which another file's name for an image is compared with the names here."""
        return name if self._plain_name is None else self._plain_name(name)

    def find(self, image: Image, *, named: bool = True) -> ImageMatch | None:
        """The image of the ground truth that ``image`` is, or None.

        Names decide (``ImageNames.find``), ids do not: every tool numbers images in its own way. Where one side has no names, as a results
        list (``named`` is False), only ids decide, as in pycocotools; in a folder of label maps, whose ids are only places in it, the id is
        then looked up as a file name. Raises InputError if the image has another size.
        """
        if self._plain_name is None and not (self.named and named):
            found = self._by_id.get(image.id)
            return None if found is None else ImageMatch(self._checked(found, image), "id")
        place = self._names.find(self.plain_name(image.file_name))
        return None if place is None else ImageMatch(self._checked(place[0], image), place[1])

    def fits(self, image: Image) -> int:
        """How many images here could be ``image``, by its name."""
        return self._names.fits(self.plain_name(image.file_name))

    def _checked(self, k: int, image: Image) -> int:
        if _size(self.images[k]) != _size(image):
            raise InputError(
                f"{show_path(image.file_name)} (id {image.id}) is {image.width}×{image.height}, but {self.images[k].width}×"
                f"{self.images[k].height} in {self.what}: masks must have the size that the ground truth has"
            )
        return k


class GroundTruth(TruthImages):
    """A ground truth of masks: ``load(k)`` gives those of ``images[k]``; ``categories`` are COCO's.

    ``searched``: the categories that each of LVIS' images was searched for, by image id; None where all were searched for all.
    """

    def __init__(
        self,
        what: str,
        images: Sequence[Image],
        load: Callable[[int], MaskSet],
        categories: Sequence[Mapping[str, Any]] = (),
        *,
        named: bool = True,
        exif: str = "unknown",
        searched: Mapping[int, Searched] | None = None,
    ) -> None:
        super().__init__(what, images, named=named, exif=exif)
        order = sorted(range(len(images)), key=lambda k: images[k].id)
        self.categories = tuple(categories)
        self.searched = searched
        self.load: Callable[[int], MaskSet] = lambda k: load(order[k])


def open_ground_truth(path: str, *, segments: str | None = None, failures: Failures | None = None) -> GroundTruth:
    """The ground truth at ``path``, a file or SA-1B's folder of JSON files.

    ``segments`` is the folder of a panoptic file's PNG files; the file's own path without ``.json`` if not given. Broken annotations go to
    ``failures`` if given. Raises InputError if it is broken or names no images, MissingInputError if it is not there.
    """
    what = show_path(path)
    if os.path.isdir(path):
        return _open_folder(path, what, failures)
    with open_input(path) as stream:
        first = masks.first_line(stream, what)
        if masks.is_masks_stream(first):
            header, sets = masks.read_stream(first, stream, what)
            # Runs would take several times the memory of the texts.
            return _held(what, [replace(one, runs=None) for one in sets], header.categories, header.named, exif=header.exif)
        values = coco_documents.parse_document(first, stream, what)
    if coco_documents.is_panoptic(values):
        entries = panoptic_images(values[0], segments or os.path.splitext(path)[0], what)
        return GroundTruth(
            what,
            [e.image for e in entries],
            lambda k: panoptic_masks(entries[k]),
            coco_documents.categories(values),
            named=coco_documents.names_images(values),
        )
    if (coco_documents.is_results(values) and not coco_documents.is_of_one_image(values)) or (
        isinstance(values[0], dict) and "annotations" in values[0] and not values[0].keys() & {"images", "image"}
    ):
        raise InputError(f'{what} lists no "images": it cannot say which images it is the ground truth of')
    held = list(coco_documents.mask_sets(values, what, failures))
    return _held(what, held, coco_documents.categories(values), coco_documents.names_images(values), _searched(values, what))


def _held(
    what: str,
    sets: list[MaskSet],
    categories: Sequence[Mapping[str, Any]],
    named: bool,
    searched: Mapping[int, Searched] | None = None,
    exif: str = "unknown",
) -> GroundTruth:
    if not sets:
        raise InputError(f"{what} has no images: there is nothing to compare with")
    return GroundTruth(what, [s.image for s in sets], sets.__getitem__, categories, named=named, searched=searched, exif=exif)


def _searched(values: list[Any], what: str) -> dict[int, Searched] | None:
    """What LVIS' images were searched for, by the ids that they have here."""
    found = searched_categories(values, what)
    numbers = {} if found is None else coco_documents.image_numbers(values[0]["images"], what)
    return None if found is None else {numbers[own]: one for own, one in found.items()}


def is_sa1b_folder(folder: str) -> bool:
    """Whether a folder of ground truth has SA-1B's JSON files: in itself, or below it where no PNG or TIFF could be a label map."""
    below = maps = False
    for path in files_below(folder):
        if path.endswith(".json"):
            if os.path.dirname(path).rstrip("/") == folder.rstrip("/"):
                return True
            below = True
        elif path.lower().endswith((".png", ".tif", ".tiff")):
            maps = True
    return below and not maps


def _open_folder(folder: str, what: str, failures: Failures | None) -> GroundTruth:
    paths = sorted((path for path in files_below(folder) if path.endswith(".json")), key=os.fsencode)
    if not paths:
        raise MissingInputError(f"{what} has no .json files: SA-1B's form is one for each image")
    images, good = [], []
    for path in paths:
        try:
            images.append(_image_of(path, failures))
            good.append(path)
        except InputError as error:
            if failures is None:
                raise
            failures.handle_again(error)
    if not images:
        raise InputError(f"{what}: none of its files can be used")
    return GroundTruth(what, images, lambda k: _load(good[k], failures))


_HEAD = 4096  # characters in which SA-1B's files say which image they are of


def _image_of(path: str, failures: Failures | None) -> Image:
    """The image of one SA-1B file, read off its beginning where it stands there: the rest is megabytes of masks."""
    with open_input(path) as file:
        head = file.read(_HEAD).decode("utf-8-sig", "replace").lstrip()
    before = '{"image":'
    if head.replace(" ", "").startswith(before):
        try:
            value, _ = json.JSONDecoder().raw_decode(head[head.index(":") + 1 :].lstrip())
            return coco.read_image(value, show_path(path))
        except (ValueError, RecursionError):
            pass
    return _load(path, failures).image


def _load(path: str, failures: Failures | None) -> MaskSet:
    what = show_path(path)
    with open_input(path) as file:
        first = masks.first_line(file, what)
        values = coco_documents.parse_document(first, file, what)
    one = len(values) == 1 and isinstance(values[0], dict) and "image" in values[0] and "annotations" in values[0]
    if not one and not coco_documents.is_of_one_image(values):
        raise InputError(f'{what} is not a file of SA-1B: it needs "image" and "annotations"')
    return next(coco_documents.mask_sets(values, what, failures))


def _size(image: Image) -> tuple[int, int]:
    return image.width, image.height
